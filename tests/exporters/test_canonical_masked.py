"""Production files with a mask: quantised ones stay on their integers, others are refused with the file to take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.integer_sums import WEIGHT_RANGE
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import masktool
from masktool.errors import UnsupportedOperatorError
from masktool.exporters.parity import open_session
from masktool.exporters.refusals import BY_DOMAIN, reason_without_rule

RNG = np.random.default_rng(17)
IMAGES = RNG.standard_normal((4, 3, 24, 24)).astype(np.float32)
HALF = np.ones((4, 1, 24, 24), np.float32)
HALF[:, :, :, :11] = 0
NETWORK = """a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r1 = Relu (a)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
    c = Conv <pads = [1, 1, 1, 1]> (p, w2, b2) s = Add (c, p) r2 = Relu (s)
    q = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r2)
    d = Conv (q, w3, b1) e = Conv <pads = [1, 1, 1, 1]> (q, w2, b1) f = Concat <axis = 1> (d, e)
    g = GlobalAveragePool (f) h = Flatten (g) y = Gemm <transB = 1> (h, w4, b4)"""
WEIGHTS = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1), "w4": (5, 16), "b4": (5,),
}  # fmt: skip


class Images(CalibrationDataReader):
    """Feeds the images to the calibration."""

    def __init__(self) -> None:
        self.feeds = iter([{"x": image[None]} for image in IMAGES])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network with every operator that is quantised with its neighbours."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 24, 24] x) => (float[n, 5] y) {{ {NETWORK} }}'
    )
    for name, shape in WEIGHTS.items():
        weight = RNG.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), name))
    path = tmp_path_factory.mktemp("float") / "float.onnx"
    onnx.save(model, path)
    return path


def optimise(source: Path, level: str, path: Path) -> Path:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return path


def quantise(source: Path, kind: str, path: Path, per_channel: bool = False) -> Path:
    form = getattr(QuantFormat, kind)
    options = {"per_channel": per_channel, "activation_type": QuantType.QUInt8, **WEIGHT_RANGE}
    quantize_static(source, path, Images(), form, **options)
    return path


def integer_operators(path: Path, tmp_path: Path) -> int:
    """Returns how many operators ONNX Runtime computes on integers."""
    optimised = ir.load(optimise(path, "EXTENDED", tmp_path / "seen.onnx"))
    return sum(node.op_type.startswith(("QLinear", "QGemm")) for node in optimised.graph)


@pytest.mark.parametrize("masking", ["layer", "partial"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ["QDQ", "QOperator"])
def test_a_quantised_network_keeps_every_bit(
    network: Path, kind: str, per_channel: bool, masking: str, tmp_path: Path
) -> None:
    source = quantise(network, kind, tmp_path / "q.onnx", per_channel)
    metadata = masktool.export(source, tmp_path / "masked.onnx", masking=masking).metadata
    assert metadata.parity["ones"] == 0
    assert metadata.parity["left_out"] == 0
    assert metadata.parity["invariance"] == 0
    plain = open_session(str(source)).run(None, {"x": IMAGES})[0]
    masked = open_session(str(tmp_path / "masked.onnx"))
    np.testing.assert_array_equal(masked.run(None, {"x": IMAGES, "mask": np.ones_like(HALF)})[0], plain)
    assert np.abs(masked.run(None, {"x": IMAGES, "mask": HALF})[0] - plain).max() > 0.01 * np.abs(plain).max()
    assert integer_operators(tmp_path / "masked.onnx", tmp_path) >= integer_operators(source, tmp_path)


def test_under_a_mask_a_quantised_network_stays_near_the_float_one(network: Path, tmp_path: Path) -> None:
    masktool.export(network, tmp_path / "float.onnx")
    masktool.export(quantise(network, "QDQ", tmp_path / "q.onnx", per_channel=True), tmp_path / "quantised.onnx")
    feed = {"x": IMAGES, "mask": HALF}
    expected = open_session(str(tmp_path / "float.onnx")).run(None, feed)[0]
    found = open_session(str(tmp_path / "quantised.onnx")).run(None, feed)[0]
    plain = open_session(str(tmp_path / "float.onnx")).run(None, {"x": IMAGES})[0]
    assert np.abs(found - expected).max() < 0.2 * np.abs(plain - expected).max()


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_an_optimised_float_file_exports(network: Path, level: str, tmp_path: Path) -> None:
    source = optimise(network, level, tmp_path / "optimised.onnx")
    parity = masktool.export(source, tmp_path / "masked.onnx").metadata.parity
    assert parity["ones"] <= 1e-6
    assert parity["invariance"] == 0


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_an_optimised_quantised_file_exports(network: Path, level: str, tmp_path: Path) -> None:
    source = optimise(quantise(network, "QDQ", tmp_path / "q.onnx"), level, tmp_path / "optimised.onnx")
    assert masktool.export(source, tmp_path / "masked.onnx").metadata.parity["ones"] == 0


def test_a_file_that_was_optimised_for_one_machine_is_refused(network: Path, tmp_path: Path) -> None:
    source = optimise(network, "ALL", tmp_path / "optimised.onnx")
    blocked = [node for node in ir.load(source).graph if node.domain == "com.microsoft.nchwc"]
    if not blocked:
        pytest.skip("ONNX Runtime uses no blocked layout on this machine")
    with pytest.raises(UnsupportedOperatorError, match="export the model as it was before optimisation") as caught:
        masktool.export(source, tmp_path / "masked.onnx")
    assert len(caught.value.nodes) == len(blocked)
    assert str(caught.value.nodes[0]).startswith("com.microsoft.nchwc::Conv-1 (node '")
    assert not (tmp_path / "masked.onnx").exists()


def test_dynamic_quantisation_is_refused_with_the_file_to_take(network: Path, tmp_path: Path) -> None:
    quantize_dynamic(network, tmp_path / "q.onnx")
    with pytest.raises(UnsupportedOperatorError, match=r"export the float model, or its QDQ file") as caught:
        masktool.export(tmp_path / "q.onnx", tmp_path / "masked.onnx")
    found = [node.op_type for node in caught.value.nodes]
    assert found.count("ConvInteger") == 4
    assert found.count("DynamicQuantizeLinear") >= 3


def test_fill_takes_what_needs_another_file_for_layers(network: Path, tmp_path: Path) -> None:
    quantize_dynamic(network, tmp_path / "dynamic.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fused.onnx"), 4
    onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    for name in ("dynamic.onnx", "fused.onnx"):
        with pytest.raises(UnsupportedOperatorError, match=r"masking=.fill. takes this file"):
            masktool.export(tmp_path / name, tmp_path / "masked.onnx")
        metadata = masktool.export(tmp_path / name, tmp_path / "masked.onnx", masking="fill").metadata
        assert metadata.batching == "one"
        assert (metadata.parity["ones"], metadata.parity["invariance"]) == (0, 0)


def test_every_other_node_without_a_rule_is_refused_at_once_and_says_why(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
            c = Conv (x, w) a = com.microsoft.Inverse (c) h = Trilu (c) t = Add (a, h) y = Relu (t) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
    with pytest.raises(UnsupportedOperatorError) as caught:
        masktool.export(model, tmp_path / "masked.onnx")
    first, second = caught.value.nodes[:2]
    assert (first.op_type, first.opset, first.reason) == ("com.microsoft::Inverse", 1, BY_DOMAIN["com.microsoft"])
    assert (second.op_type, second.opset, second.reason) == ("Trilu", 18, "no rule for this operator")


@pytest.mark.parametrize(
    ("domain", "op_type", "words"),
    [
        ("com.microsoft.nchwc", "MaxPool", "optimised for one machine"),
        ("com.microsoft", "DynamicQuantizeMatMul", "measured at run time"),
        ("com.microsoft", "GroupNorm", "as it was before optimisation"),
        ("com.microsoft", "QuantizeLinear", "opset 21"),
        ("", "QLinearConv", "QDQ file"),
        ("", "Loop", "with the loop unrolled"),
        ("ai.onnx.contrib", "DecodeImage", "without its pre- and postprocessing"),
        ("org.pytorch.aten", "ATen", "newer PyTorch"),
        ("acme", "Magic", "the domain 'acme' is not part of ONNX"),
    ],
)
def test_each_domain_has_its_hint(domain: str, op_type: str, words: str) -> None:
    assert words in reason_without_rule(ir.node(op_type, [], domain=domain))
