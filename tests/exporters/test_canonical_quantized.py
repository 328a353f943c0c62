"""Quantised files, as ONNX Runtime's tools write them, become float operators between quantisations, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from combinations import every_value
from networks.integer_sums import WEIGHT_RANGE
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from PIL import Image

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session

BGR_MEAN = (104, 117, 123)
CALIBRATION_PHOTOGRAPHS = 4
QUANTISED = {"QLinearConv", "QGemm", "QLinearMatMul", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearSoftmax"}
WEIGHTS = {
    "squeezenet": ("squeezenet11_caffe2_fp32.onnx", "data_0"),
    "mobilenet": ("mobilenet_v1_0.25_224_tf2onnx_nchw.onnx", "input_2"),
    "mobilenet, channels last": ("mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx", "input_2"),
}
FORMATS = {
    "QDQ": {"quant_format": QuantFormat.QDQ},
    "QDQ per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QDQ signed": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8},
    "QOperator": {"quant_format": QuantFormat.QOperator},
    "QOperator per channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


class Photographs(CalibrationDataReader):
    """Feeds photographs to the calibration."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.feeds = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def read_photographs(folder: Path, network: str) -> np.ndarray:
    """Returns centre crops as the network wants them."""
    images = []
    for path in sorted(folder.glob("*.JPEG"))[:CALIBRATION_PHOTOGRAPHS]:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
        top, left = (pixels.shape[0] - 224) // 2, (pixels.shape[1] - 224) // 2
        images.append(pixels[top : top + 224, left : left + 224])
    batch = np.stack(images)
    if network == "squeezenet":
        return np.ascontiguousarray((batch[..., ::-1] - np.float32(BGR_MEAN)).transpose(0, 3, 1, 2))
    batch = batch / np.float32(127.5) - 1
    return batch if "last" in network else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


@pytest.fixture(scope="module", params=list(WEIGHTS))
def network(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """(name, path of the float model in opset 13, name of its input, photographs)."""
    file, image_input = WEIGHTS[request.param]
    model = onnx.load(data_dir / "weights" / file)
    model.ir_version = 8
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    optimised(model.SerializeToString(), "BASIC", path)  # quantisation wants batch normalisation folded away
    return request.param, path, image_input, read_photographs(data_dir / "acuity227", request.param)


def optimised(model: bytes | str, level: str, path: Path) -> Path:
    """Has ONNX Runtime optimise a model, and write what it made of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return path


def op_types(model: ir.Model) -> set[str]:
    return {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph}


def check_same(source: Path, image_input: str, images: np.ndarray) -> ir.Model:
    """The canonical form gives what the source gives, to the last bit, and has standard operators only."""
    canonical = canonicalise(ir.load(source))
    expected = [open_session(str(source)).run(None, {image_input: image[None]})[0] for image in images]
    session = open_session(ir.to_proto(canonical).SerializeToString())
    found = [session.run(None, {image_input: image[None]})[0] for image in images]
    np.testing.assert_array_equal(found, expected)
    assert all(node.domain == "" for node in canonical.graph)
    assert not op_types(canonical) & QUANTISED
    return canonical


@pytest.mark.parametrize("kind", list(FORMATS))
def test_quantised_files_keep_every_bit(network, kind: str, tmp_path: Path) -> None:
    _, path, image_input, images = network
    quantize_static(path, tmp_path / "q.onnx", Photographs(image_input, images), **FORMATS[kind], **WEIGHT_RANGE)
    canonical = check_same(tmp_path / "q.onnx", image_input, images)
    assert {"DequantizeLinear", "QuantizeLinear", "Conv"} <= op_types(canonical)


@every_value(kind=["QDQ", "QOperator per channel"], level=["BASIC", "EXTENDED", "ALL"])
def test_quantised_files_that_were_optimised_keep_every_bit(network, kind: str, level: str, tmp_path: Path) -> None:
    _, path, image_input, images = network
    quantize_static(path, tmp_path / "q.onnx", Photographs(image_input, images), **FORMATS[kind], **WEIGHT_RANGE)
    source = optimised(str(tmp_path / "q.onnx"), level, tmp_path / "optimised.onnx")
    if level != "BASIC":
        assert any("QLinear" in op_type for op_type in op_types(ir.load(source)))
    check_same(source, image_input, images)


def test_integers_meet_only_their_quantisation(network, tmp_path: Path) -> None:
    _, path, image_input, images = network
    quantize_static(path, tmp_path / "q.onnx", Photographs(image_input, images), **FORMATS["QOperator"], **WEIGHT_RANGE)
    canonical = canonicalise(ir.load(tmp_path / "q.onnx"))
    integers = {ir.DataType.INT8, ir.DataType.UINT8}
    for node in canonical.graph:
        if any(value is not None and value.dtype in integers for value in node.inputs):
            assert node.op_type in {"DequantizeLinear", "QuantizeLinear"}
        assert all(value.dtype is not None and value.shape is not None for value in node.outputs)


def test_dynamic_quantisation_keeps_every_bit(network, tmp_path: Path) -> None:
    _, path, image_input, images = network
    quantize_dynamic(path, tmp_path / "q.onnx")
    canonical = check_same(tmp_path / "q.onnx", image_input, images)
    assert "DynamicQuantizeLinear" in op_types(canonical)


def quantised_graph(nodes: str, output: str = "uint8[n, k, a, b] y", **constants: np.ndarray) -> onnx.ModelProto:
    """Returns a graph from a quantised image q (uint8, scale s, zero point z) to y."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>
        g (float[n, 4, 6, 8] x) => ({output}) {{ q = QuantizeLinear (x, s, z) {nodes} }}"""
    )
    scales = {"s": np.float32(0.02), "z": np.uint8(120), "t": np.float32(0.03), "o": np.uint8(90)}
    for name, array in (scales | constants).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


RNG = np.random.default_rng(3)
MATRIX = RNG.integers(-90, 90, (8, 5)).astype(np.int8)
OPERATORS = {
    "add": "y = com.microsoft.QLinearAdd (q, s, z, q, s, z, t, o)",
    "multiply": "y = com.microsoft.QLinearMul (q, s, z, q, s, z, t, o)",
    "average": "y = com.microsoft.QLinearAveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (q, s, z, t, o)",
    "global average": "y = com.microsoft.QLinearGlobalAveragePool (q, s, z, t, o)",
    "sigmoid": "y = com.microsoft.QLinearSigmoid (q, s, z, t, o)",
    "leaky": "y = com.microsoft.QLinearLeakyRelu <alpha = 0.1> (q, s, z, t, o)",
    "concat": "y = com.microsoft.QLinearConcat <axis = 1> (t, o, q, s, z, q, s, z)",
    "softmax": "y = com.microsoft.QLinearSoftmax <axis = 1, opset = 13> (q, s, z, t, o)",
    "product": "y = QLinearMatMul (q, s, z, m, ms, mz, t, o)",
    "product per column": "y = QLinearMatMul (q, s, z, m, mss, mzz, t, o)",
    "moved about": "p = MaxPool <kernel_shape = [2, 2]> (q) r = Transpose <perm = [0, 2, 3, 1]> (p) "
    "c = Concat <axis = 3> (r, r) y = Reshape (c, shape)",
    "scale of one entry": "y = QLinearConv (q, s1, z1, w, ms, mz, t, o)",
}
CONSTANTS = {
    "m": MATRIX,
    "ms": np.float32(0.01),
    "mz": np.int8(0),
    "mss": np.linspace(0.01, 0.02, 5, dtype=np.float32),
    "mzz": np.zeros(5, np.int8),
    "shape": np.array([0, -1, 2, 1]),
    "s1": np.float32([0.02]),
    "z1": np.uint8([120]),
    "w": MATRIX[:4, :4, None, None],
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_each_quantised_operator_gives_what_it_gave(name: str) -> None:
    nodes = OPERATORS[name]
    used = {key: CONSTANTS[key] for key in re.findall(r"\w+", nodes) if key in CONSTANTS}
    model = quantised_graph(nodes, **used)
    canonical = canonicalise(ir.from_proto(model))
    images = RNG.standard_normal((3, 4, 6, 8)).astype(np.float32)
    expected = open_session(model.SerializeToString()).run(None, {"x": images})[0]
    found = open_session(ir.to_proto(canonical).SerializeToString()).run(None, {"x": images})[0]
    np.testing.assert_array_equal(found, expected)
    assert all(node.domain == "" and not node.op_type.startswith("QLinear") for node in canonical.graph)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("result", ["uint8", "float"])
def test_a_quantised_gemm_gives_what_it_gave(transposed: int, result: str) -> None:
    weight = RNG.integers(-90, 90, (5, 4) if transposed else (4, 5)).astype(np.int8)
    outputs = ", t, o" if result == "uint8" else ""
    nodes = f"""p = com.microsoft.QLinearGlobalAveragePool (q, s, z, s, z) f = Flatten (p)
        y = com.microsoft.QGemm <alpha = 0.5, transB = {transposed}> (f, s, z, m, mss, mzz, c{outputs})"""
    constants = {key: CONSTANTS[key] for key in ("mss", "mzz")} | {"m": weight, "c": np.arange(5, dtype=np.int32) * 50}
    model = quantised_graph(nodes, f"{result}[n, k] y", **constants)
    canonical = canonicalise(ir.from_proto(model))
    images = RNG.standard_normal((3, 4, 6, 8)).astype(np.float32)
    expected = open_session(model.SerializeToString()).run(None, {"x": images})[0]
    found = open_session(ir.to_proto(canonical).SerializeToString()).run(None, {"x": images})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if result == "uint8" else 1e-6 * np.abs(expected).max())
    assert "Gemm" in op_types(canonical)


def test_a_convolution_without_constant_scales_stays_for_its_refusal() -> None:
    nodes = "r = ReduceMax <keepdims = 0> (x) y = QLinearConv (q, r, z, w, s, wz, t, o, b)"
    weight = {"w": CONSTANTS["w"], "wz": np.int8(0), "b": np.zeros(4, np.int32)}
    assert "QLinearConv" in op_types(canonicalise(ir.from_proto(quantised_graph(nodes, **weight))))


def test_quantisation_in_onnx_runtimes_own_domain_becomes_the_standard_one() -> None:
    nodes = """c = com.microsoft.DequantizeLinear (q, s, z) r = Relu (c)
        y = com.microsoft.QuantizeLinear (r, t, o)"""
    canonical = canonicalise(ir.from_proto(quantised_graph(nodes)))
    assert op_types(canonical) == {"QuantizeLinear", "DequantizeLinear", "Relu"}


def test_sixteen_bits_stay_for_their_refusal() -> None:
    nodes = "y = com.microsoft.QuantizeLinear (x, s, wide)"
    canonical = canonicalise(ir.from_proto(quantised_graph(nodes, "uint16[n, k, a, b] y", wide=np.uint16(1000))))
    assert "com.microsoft::QuantizeLinear" in op_types(canonical)


def test_weights_quantised_in_blocks_stay_as_they_are() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 4, 6, 8] x) => (float[n, 4, 6, 5] y)
        { m = DequantizeLinear <axis = 0, block_size = 4> (weight, scales, zeros) y = MatMul (x, m) }"""
    )
    constants = {
        "weight": MATRIX,
        "scales": RNG.random((2, 5)).astype(np.float32),
        "zeros": np.zeros((2, 5), np.int8),
    }
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    canonical = canonicalise(ir.from_proto(model))
    images = RNG.standard_normal((2, 4, 6, 8)).astype(np.float32)
    expected = open_session(model.SerializeToString()).run(None, {"x": images})[0]
    np.testing.assert_array_equal(
        open_session(ir.to_proto(canonical).SerializeToString()).run(None, {"x": images})[0], expected
    )
    assert [node.op_type for node in canonical.graph] == ["DequantizeLinear", "MatMul"]
