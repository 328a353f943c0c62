"""The canonical form computes what the graph computes, and has the form that rules rely on."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from masktool.exporters.canonical import canonicalise, opset_of
from masktool.exporters.parity import open_session

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
IMAGES = np.random.default_rng(1).standard_normal((2, 3, 9, 10)).astype(np.float32)


def parse(nodes: str, opset: int = 18, output: str = "float[n, k, a, b] y", **constants: list[int]) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[n, 3, 9, 10] x) => ({output}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    return ir.from_proto(model)


def run(model: ir.Model) -> np.ndarray:
    return open_session(ir.to_proto(model).SerializeToString()).run(None, {"x": IMAGES})[0]


SLICES = "c = Slice (x, s, e, a, t) y = Slice (c, s1, e, a1, t)"
ONES = {"s": [0], "s1": [1], "e": [2**31 - 1], "a": [2], "a1": [3], "t": [2]}


@pytest.mark.parametrize(
    ("nodes", "constants", "left"),
    [
        (SLICES, ONES, ["Slice"]),
        (SLICES, ONES | {"a1": [-1], "t": [-3], "s": [8], "s1": [-1], "e": [-(2**63)]}, ["Slice"]),
        (SLICES, ONES | {"a1": [2]}, ["Slice", "Slice"]),  # of one axis: the second counts in what the first left
        (SLICES, ONES | {"t": [1]}, ["Slice", "Slice"]),
        (f"{SLICES} z = Relu (c)", ONES, ["Slice"]),
        (
            "c = Gather <axis = 2> (x, i) y = Gather <axis = 3> (c, j)",
            {"i": [0, 2, 4, 6, 8], "j": [1, 5, 9]},
            ["Slice"],
        ),
        ("y = Gather <axis = -1> (x, i)", {"i": [9, 6, 3, 0]}, ["Slice"]),
        ("y = Gather <axis = 3> (x, i)", {"i": [-2, -4, -6, -8, -10]}, ["Slice"]),
        ("y = Gather <axis = 3> (x, i)", {"i": [0, 2, 4]}, ["Gather"]),  # not to the end
        ("y = Gather <axis = 3> (x, i)", {"i": [3, 5, 7, 9]}, ["Gather"]),
        ("y = Gather <axis = 3> (x, i)", {"i": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}, ["Gather"]),
        ("y = Gather <axis = 3> (x, i)", {"i": [0, 5, 0]}, ["Gather"]),
    ],
)
def test_what_picks_every_so_many_th_place_is_one_slice(nodes: str, constants: dict, left: list[str]) -> None:
    model = parse(nodes, **constants)
    canonical = canonicalise(model)
    assert op_types(canonical) == left
    np.testing.assert_array_equal(run(canonical), run(model))


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    "attributes",
    [
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
        'auto_pad = "SAME_LOWER", strides = [2, 3]',
        'auto_pad = "SAME_LOWER"',
        'auto_pad = "VALID"',
    ],
)
def test_auto_pad_becomes_the_pads_it_stands_for(attributes: str) -> None:
    model = parse(f"y = Conv <{attributes}> (x, w)")
    canonical = canonicalise(model)
    assert "auto_pad" not in next(iter(canonical.graph)).attributes
    np.testing.assert_array_equal(run(canonical), run(model))


@pytest.mark.parametrize(
    "window", ["Conv (p, w)", "AveragePool <kernel_shape = [3, 3]> (p)", "Conv <pads = [1, 1, 1, 1]> (p, w)"]
)
def test_a_pad_of_zeros_becomes_pads_of_the_window(window: str) -> None:
    model = parse(f"p = Pad (x, amounts) y = {window}", amounts=[0, 0, 1, 0, 0, 0, 2, 1])
    canonical = canonicalise(model)
    assert "Pad" not in op_types(canonical)
    np.testing.assert_allclose(run(canonical), run(model), atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "amounts"),
    [
        ("p = Pad (x, amounts) y = MaxPool <kernel_shape = [3, 3]> (p)", [0, 0, 1, 1, 0, 0, 1, 1]),
        ('p = Pad <mode = "reflect"> (x, amounts) y = Conv (p, w)', [0, 0, 1, 1, 0, 0, 1, 1]),
        ("p = Pad (x, amounts) r = Relu (p) y = Conv (p, w)", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("p = Pad (x, amounts) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (p)", [0, 0, 1, 1] * 2),
    ],
)
def test_any_other_pad_stays(nodes: str, amounts: list[int]) -> None:
    model = parse(nodes, amounts=amounts)
    keeps_both = "Relu" not in nodes  # the Relu is unused, so that the Pad has one user after all
    assert ("Pad" in op_types(canonicalise(model))) is keeps_both


def test_amounts_that_an_exporter_computes_are_folded() -> None:
    nodes = """
        z = ConstantOfShape <value = int64[1] {0}> (length) a = Concat <axis = 0> (z, amounts)
        f = Cast <to = 7> (a) p = Pad (x, f) r = Relu (p) y = Add (r, p)
    """
    canonical = canonicalise(parse(nodes, length=[2], amounts=[1, 1, 0, 0, 1, 1]))
    assert op_types(canonical) == ["Pad", "Relu", "Add"]
    pads = next(iter(canonical.graph)).inputs[1]
    assert pads is not None
    assert pads.const_value is not None
    assert pads.const_value.numpy().tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_one_unknown_operator_leaves_the_other_shapes_known() -> None:
    model = parse("u = unknown.Thing (x) c = Conv (x, w) y = Relu (c)")
    model.opset_imports["unknown"] = 1
    convolution = next(node for node in canonicalise(model).graph if node.op_type == "Conv")
    assert convolution.outputs[0].shape is not None
    assert tuple(convolution.outputs[0].shape)[1:] == (4, 7, 8)


def test_old_opsets_are_lifted_and_dropout_is_gone() -> None:
    model = parse("d = Dropout (x) c = Conv (d, w) f = Flatten (c) y = Softmax <axis = 1> (f)", 9, "float[n, k] y")
    canonical = canonicalise(model)
    assert opset_of(canonical) == 18
    assert "Dropout" not in op_types(canonical)
    np.testing.assert_allclose(run(canonical), run(model), atol=1e-7)


def test_the_given_model_stays_as_it_is() -> None:
    model = parse("d = Dropout (x) y = Conv (d, w)")
    before = ir.to_proto(model).SerializeToString()
    canonicalise(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_an_open_batch_without_a_name_gets_one() -> None:
    model = parse("y = Conv (x, w)")
    model.graph.inputs[0].shape = ir.Shape([None, 3, 9, 10])
    shape = canonicalise(model).graph.inputs[0].shape
    assert shape is not None
    assert shape[0] == "x_batch"
