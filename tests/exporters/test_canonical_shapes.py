"""Arithmetic on shapes is folded as far as shapes are known: all but the batch."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session

RNG = np.random.default_rng(13)
IMAGES = RNG.standard_normal((2, 4, 6, 8)).astype(np.float32)
CONSTANTS = {
    **{f"i{number}": np.array(number) for number in range(4)},
    **{f"v{number}": np.array([number]) for number in range(3)},
    "minus": np.array([-1]),
    "groups": np.array([2]),
    "float2": np.float32(2),
}
LENGTHS = """s = Shape (x) n0 = Gather <axis = 0> (s, i0) n1 = Gather <axis = 0> (s, i1) n2 = Gather <axis = 0> (s, i2)
    n3 = Gather <axis = 0> (s, i3) u0 = Unsqueeze (n0, v0) u1 = Unsqueeze (n1, v0) u2 = Unsqueeze (n2, v0)
    u3 = Unsqueeze (n3, v0) """
FLAT = {
    "PyTorch's view(n, -1)": LENGTHS + "t = Concat <axis = 0> (u0, minus) y = Reshape (x, t)",
    "PyTorch's flatten by a product": LENGTHS
    + "a = Mul (n1, n2) b = Mul (a, n3) p = Unsqueeze (b, v0) t = Concat <axis = 0> (u0, p) y = Reshape (x, t)",
    "Keras through int32": """s = Shape (x) f = Cast <to = 6> (s) h = Slice (f, v0, v1) k = Cast <to = 7> (h)
        t = Concat <axis = 0> (k, minus) y = Reshape (x, t)""",
    "the product of the rest": """s = Shape <start = 1> (x) p = ReduceProd <keepdims = 1> (s) h = Shape <end = 1> (x)
        t = Concat <axis = 0> (h, p) y = Reshape (x, t)""",
}
OTHERS = {
    "channel shuffle": (
        LENGTHS
        + """g = Div (u1, groups) t = Concat <axis = 0> (u0, groups, g, u2, u3) r = Reshape (x, t)
        q = Transpose <perm = [0, 2, 1, 3, 4]> (r) b = Concat <axis = 0> (u0, u1, u2, u3) y = Reshape (q, b)""",
        ["Reshape", "Transpose", "Reshape"],
    ),
    "expanded to its own shape": ("p = GlobalAveragePool (x) s = Shape (x) e = Expand (p, s) y = Mul (x, e)",
        ["GlobalAveragePool", "Expand", "Mul"]),
    "sizes from another map": (
        """p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) s = Shape (x)
        y = Resize <mode = "nearest"> (p, , , s)""",
        ["MaxPool", "Resize"],
    ),
    "half of the channels": (
        LENGTHS + "h = Div (u1, groups) y = Slice (x, v0, h, v1)",
        ["Slice"],
    ),
    "a float in between": (
        LENGTHS + """f = Cast <to = 1> (u2) d = Div (f, float2) r = Floor (d) k = Cast <to = 7> (r)
        y = Slice (x, v0, k, v2)""",
        ["Slice"],
    ),
}  # fmt: skip


def graph(nodes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[n, 4, 6, 8] x) => (float y) {{ {nodes} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name in sorted(set(re.findall(r"\w+", nodes)) & set(CONSTANTS)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(CONSTANTS[name], name))
    return model


def check_same(nodes: str) -> list[str]:
    """Returns the canonical operators, once they have given what the source gives, at several batches."""
    canonical = canonicalise(ir.from_proto(graph(nodes)))
    found = open_session(ir.to_proto(canonical).SerializeToString())
    expected = open_session(graph(nodes).SerializeToString())
    for batch in (1, 2):
        feed = {"x": IMAGES[:batch]}
        np.testing.assert_array_equal(found.run(None, feed)[0], expected.run(None, feed)[0])
    assert all(value.shape is not None for node in canonical.graph for value in node.outputs)
    return [node.op_type for node in canonical.graph]


@pytest.mark.parametrize("nodes", FLAT.values(), ids=list(FLAT))
def test_flattening_has_a_constant_target(nodes: str) -> None:
    assert check_same(nodes) == ["Reshape"]


@pytest.mark.parametrize(("nodes", "expected"), OTHERS.values(), ids=list(OTHERS))
def test_only_what_moves_values_is_left(nodes: str, expected: list[str]) -> None:
    assert check_same(nodes) == expected


def test_one_step_follows_from_another() -> None:
    step = "s{0} = Shape (x{0}) c{0} = Gather <axis = 0> (s{0}, v1) h{0} = Div (c{0}, groups) "
    step += "a{0} = Slice (x{0}, v0, h{0}, v1) x{1} = Concat <axis = 1> (a{0}, a{0}) "
    nodes = "x0 = Relu (x) " + "".join(step.format(i, i + 1) for i in range(4)) + "y = Neg (x4)"
    assert check_same(nodes) == ["Relu", *["Slice", "Concat"] * 4, "Neg"]


def test_one_length_has_one_name() -> None:
    nodes = LENGTHS + "h = Div (u1, groups) a = Slice (x, v0, h, v1) y = Concat <axis = 1> (a, a)"
    canonical = canonicalise(ir.from_proto(graph(nodes)))
    assert {str(value.shape[0]) for node in canonical.graph for value in node.outputs if value.shape} == {"n"}


@pytest.mark.parametrize(
    "nodes",
    [
        "s = Shape (x) k = ReduceMax (x) c = Cast <to = 7> (k) q = Reshape (c, v1) y = Tile (x, s)",
        LENGTHS + "t = Concat <axis = 0> (minus, u0) y = Reshape (x, t)",
    ],
    ids=["no target", "the batch elsewhere"],
)
def test_what_follows_from_the_batch_stays(nodes: str) -> None:
    assert "Shape" in check_same(nodes)
