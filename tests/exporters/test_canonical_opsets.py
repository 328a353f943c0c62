"""Graphs of every opset that ONNX Runtime runs are lifted, and compute what they computed."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from masktool.errors import MasktoolError
from masktool.exporters.canonical import canonicalise, opset_of
from masktool.exporters.parity import open_session

RNG = np.random.default_rng(11)
IMAGES = RNG.standard_normal((2, 3, 8, 10)).astype(np.float32)
BIAS = RNG.standard_normal(4).astype(np.float32)
CONSTANTS = {
    "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "b": BIAS,
    "variance": np.abs(BIAS),
    "slope": np.abs(BIAS).reshape(4, 1, 1),
    "doubled": np.float32([1, 1, 2, 2]),
    "stretched": np.float32([1, 1, 1.5, 1.7]),
    "shrunk": np.float32([1, 1, 0.5, 0.6]),
    "empty": np.float32([]),
    "ones": np.float32([1, 1]),
    "two": np.float32([2, 2]),
    "zero": np.float32(0),
    "three": np.float32(3),
    "six": np.float32(6),
    "ratio": np.float32(0.5),
    "training": np.array(False),
    "first": np.array([0]),
    "second": np.array([2]),
    "sizes": np.array([16, 20]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "dense": RNG.standard_normal((5, 4)).astype(np.float32),
    "five": RNG.standard_normal(5).astype(np.float32),
}
GRAPHS = {
    "Upsample-7, scales as attribute": (7, 'u = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)', "u"),
    "Upsample-9 nearest": (9, 'u = Upsample <mode = "nearest"> (x, doubled)', "u"),
    "Upsample-9 nearest, odd scales": (9, 'u = Upsample <mode = "nearest"> (x, stretched)', "u"),
    "Upsample-9 linear": (9, 'u = Upsample <mode = "linear"> (x, doubled)', "u"),
    "Upsample-9, scales computed as tf2onnx does": (
        9,
        """s = Shape (x) f = Cast <to = 1> (s) h = Slice <axes = [0], starts = [2], ends = [4]> (f) m = Mul (h, two)
        r = Floor (m) q = Div (r, h) k = Concat <axis = 0> (ones, q) u = Upsample <mode = "nearest"> (x, k)""",
        "u",
    ),
    "Resize-10 linear": (10, 'u = Resize <mode = "linear"> (x, doubled)', "u"),
    "Resize-10 smaller": (10, 'u = Resize <mode = "nearest"> (x, shrunk)', "u"),
    "Resize-11": (
        11,
        'u = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, empty, doubled)',
        "u",
    ),
    "Resize-11, sizes as PyTorch computes them": (
        11,
        """s = Shape (x) k = Slice (s, first, second) t = Concat <axis = 0> (k, sizes)
        u = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"> (x, empty, empty, t)""",
        "u",
    ),
    "Dropout-6": (6, "u = Dropout <ratio = 0.5, is_test = 1> (x)", "u"),
    "Dropout-7 with its mask": (7, "u, m = Dropout <ratio = 0.5> (x)", "u"),
    "Dropout-12": (12, "u, m = Dropout (x, ratio, training)", "u"),
    "BatchNormalization-7, spatial": (7, "", "x", "BatchNormalization <spatial = 1> (c, b, b, b, variance)"),
    "BatchNormalization-9": (9, "", "x", "BatchNormalization (c, b, b, b, variance)"),
    "Pad-2": (7, 'u = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1], mode = "constant", value = 0.0> (x)', "u"),
    "Pad-2 without mode": (9, "u = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x)", "u"),
    "Pad-11": (11, "u = Pad (x, pads)", "u"),
    "Clip-6": (7, "", "x", "Clip <min = 0.0, max = 6.0> (c)"),
    "Clip-6, one bound": (9, "", "x", "Clip <min = 0.0> (c)"),
    "Clip-11": (11, "", "x", "Clip (c, zero, six)"),
    "Softmax-1 flattens": (7, "", "x", "Softmax (c)"),
    "Softmax-11 flattens": (11, "", "x", "Softmax <axis = 2> (c)"),
    "Softmax-11, last axis": (11, "", "x", "Softmax <axis = 3> (c)"),
    "LogSoftmax-1": (9, "", "x", "LogSoftmax <axis = 1> (c)"),
    "Squeeze-1": (9, "", "x", "GlobalAveragePool (c) y = Squeeze <axes = [2, 3]> (h)"),
    "Squeeze-1 of all": (9, "", "x", "GlobalAveragePool (c) y = Squeeze (h)"),
    "Unsqueeze-1": (
        9,
        "",
        "x",
        "GlobalAveragePool (c) s = Squeeze <axes = [2, 3]> (h) v = Unsqueeze <axes = [2, 3]> (s) y = Mul (c, v)",
    ),
    "ReduceMean-1": (7, "", "x", "ReduceMean <axes = [2, 3], keepdims = 0> (c)"),
    "ReduceSum-11": (11, "", "x", "ReduceSum <axes = [2, 3], keepdims = 1> (c)"),
    "Split-2": (11, "", "x", "Identity (c) p, q = Split <axis = 1, split = [1, 3]> (h) y = Concat <axis = 1> (q, p)"),
    "Split-11 in equal parts": (11, "", "x", "Identity (c) p, q = Split <axis = 1> (h) y = Concat <axis = 1> (q, p)"),
    "Slice-1": (9, "", "x", "Slice <axes = [2, 3], starts = [1, 1], ends = [9223372036854775807, -1]> (c)"),
    "Gemm-7": (7, "", "x", "GlobalAveragePool (c) f = Flatten (h) y = Gemm <transB = 1> (f, dense, five)"),
    "PRelu-7": (7, "", "x", "PRelu (c, slope)"),
    "AveragePool-7": (
        7,
        "u = AveragePool <kernel_shape = [3, 3], pads = [0, 1, 0, 1], count_include_pad = 1>(x)",
        "u",
    ),
    "MaxPool-8": (8, "u = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], storage_order = 0> (x)", "u"),
    "hard swish in pieces": (11, "", "x", "Add (c, three) k = Clip (h, zero, six) m = Mul (c, k) y = Div (m, six)"),
    "Sum-6": (6, "", "x", "Sum (c, c, c)"),
    "TopK-1": (9, "", "x", "GlobalAveragePool (c) f = Flatten (h) k, i = TopK <axis = 1, k = 2> (f) y = Neg (k)"),
    "ConvTranspose with SAME": (9, "", "x", 'ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (c, w)'),
}


def graph(opset: int, nodes: str, source: str, last: str = "Relu (c)") -> onnx.ModelProto:
    last = f"y = {last}" if "y = " not in last else f"h = {last}"
    text = f"{nodes} c = Conv ({source}, w) {last}"
    model = onnx.parser.parse_model(
        f'<ir_version: 4, opset_import: ["" : {opset}]> g (float[n, 3, 8, 10] x) => (float y) {{ {text} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name in sorted(set(re.findall(r"\w+", text)) & set(CONSTANTS)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(CONSTANTS[name], name))
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    return open_session(model.SerializeToString()).run(["y"], {"x": IMAGES})[0]


@pytest.mark.parametrize("arguments", GRAPHS.values(), ids=list(GRAPHS))
def test_old_operators_keep_every_bit(arguments: tuple) -> None:
    model = graph(*arguments)
    canonical = canonicalise(ir.from_proto(model))
    assert opset_of(canonical) == 18
    np.testing.assert_array_equal(run(ir.to_proto(canonical)), run(model))
    assert not {"Upsample", "Dropout", "Pad", "Shape"} & {node.op_type for node in canonical.graph}
    assert all(value.shape is not None for node in canonical.graph for value in node.outputs)


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
def test_later_opsets_stay(opset: int) -> None:
    canonical = canonicalise(ir.from_proto(graph(opset, "", "x")))
    assert opset_of(canonical) == opset


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_the_standard_domain_may_have_its_long_name(opset: int) -> None:
    model = graph(opset, "", "x")
    model.opset_import[0].domain = "ai.onnx"
    canonical = canonicalise(ir.from_proto(model))
    assert canonical.opset_imports == {"": max(opset, 18)}
    np.testing.assert_array_equal(run(ir.to_proto(canonical)), run(model))


def test_weights_of_the_oldest_files_need_not_be_inputs() -> None:
    model = graph(7, "", "x")
    model.ir_version = 3
    large = {"w": RNG.standard_normal((40, 3, 3, 3)).astype(np.float32)}
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(large["w"], "w"))
    canonical = canonicalise(ir.from_proto(model))
    assert [value.name for value in canonical.graph.inputs] == ["x"]
    np.testing.assert_array_equal(canonical.graph.initializers["w"].const_value.numpy(), large["w"])


def test_weights_that_are_inputs_too_are_weights() -> None:
    model = graph(9, "", "x")
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3, 3, 3]))
    canonical = canonicalise(ir.from_proto(model))
    assert [value.name for value in canonical.graph.inputs] == ["x"]
    np.testing.assert_allclose(run(ir.to_proto(canonical)), run(model), atol=1e-5)  # ONNX Runtime packs weights alone


def test_what_the_converter_does_not_know_is_refused_in_one_line() -> None:
    model = graph(6, "", "x", "Add <broadcast = 1, axis = 1> (c, b)")
    with pytest.raises(MasktoolError, match=r"the opset cannot be lifted: expected opset 18 or later, got 6") as caught:
        canonicalise(ir.from_proto(model))
    assert "\n" not in str(caught.value)


def test_nodes_without_a_name_or_with_the_same_get_names_of_their_own() -> None:
    model = graph(11, "", "x", "Relu (c) k = Relu (h) y = Relu (k)")
    for node, name in zip(model.graph.node, ["", "same", "same", ""], strict=True):
        node.name = name
    names = [node.name for node in canonicalise(ir.from_proto(model)).graph]
    assert all(names)
    assert len(set(names)) == 4


def test_functions_of_the_file_are_inlined() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[n, 3, 8, 10] x) => (float[n, 3, 8, 10] y) { h = own.Twice (x) y = own.Twice (h) }
        <domain: "own", opset_import: ["" : 17]> Twice (a) => (b) { r = Relu (a) b = Add (r, r) }"""
    )
    canonical = canonicalise(ir.from_proto(model))
    assert [node.op_type for node in canonical.graph] == ["Relu", "Add", "Relu", "Add"]
    assert not canonical.functions
    assert "own" not in canonical.opset_imports
    np.testing.assert_array_equal(run(ir.to_proto(canonical)), run(model))
