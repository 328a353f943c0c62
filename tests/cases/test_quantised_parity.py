"""Quantised networks: measured in their own range, with ONNX Runtime's optimisations and without, residual ones too."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.integer_sums import CHANNELS_IN_NO_BLOCK, WEIGHT_RANGE
from networks.small_graphs import parse
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import masktool
from masktool import MasktoolError
from masktool.contract import Masking
from masktool.exporters import preparation, saturation
from masktool.exporters.canonical import canonicalise
from masktool.exporters.domains import draw_pictures
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export

FORMATS = {
    "QDQ": {"quant_format": QuantFormat.QDQ},
    "QDQ per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QDQ unsigned": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8},
    "QOperator": {"quant_format": QuantFormat.QOperator},
    "QOperator per channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
    "QOperator unsigned": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
}
"""The default activations are int8."""
BLOCK = """{c}1 = Conv<pads = [1, 1, 1, 1]>({x}, k{n}, b) {c}2 = Relu({c}1)
    {c}3 = Conv<pads = [1, 1, 1, 1]>({c}2, l{n}, b) {c}4 = Add({c}3, {x}) {c} = Relu({c}4)"""


@pytest.fixture(scope="module")
def residual() -> onnx.ModelProto:
    """Three residual blocks, a shortcut that is padded with zeros, and a classifier."""
    weights = ", ".join(f"float[8, 8, 3, 3] k{n}, float[8, 8, 3, 3] l{n}" for n in "abc")
    text = f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N, 3, 16, 16] image) => (float[N, 5] y)
        <float[8, 3, 3, 3] k, float[8] b, {weights}, int64[8] pads, float nothing, float[12, 5] w>
 {{
        s = Conv<pads = [1, 1, 1, 1]>(image, k, b) s0 = Relu(s)
        {BLOCK.format(c="p", x="s0", n="a")} {BLOCK.format(c="q", x="p", n="b")} {BLOCK.format(c="r", x="q", n="c")}
        o = Pad<mode = "constant">(r, pads, nothing) g0 = GlobalAveragePool(o) f = Flatten(g0) y = MatMul(f, w) }}"""
    model = parse(text, pads=[0, 2, 0, 0, 0, 2, 0, 0], nothing=0)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array / np.float32(np.sqrt(array[0].size)), tensor.name))
    return model


class Pictures(CalibrationDataReader):
    """Feeds pictures to the calibration."""

    def __init__(self, images: np.ndarray) -> None:
        self.feeds = iter([{"image": image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def pictures(count: int, seed: int) -> np.ndarray:
    return (draw_pictures(np.random.default_rng(seed), (count, 3, 16, 16)) * 4 - 2).astype(np.float32)


C = CHANNELS_IN_NO_BLOCK
MIXED = f"""<ir_version: 8, opset_import: ["" : 15]> g (float[N, 3, 16, 16] image) => (float[N, 5] y)
    <float[{C}, 3, 3, 3] k, float[{C}] b, float[{C}, {C}, 3, 3] k1, float[{C}, {C}, 1, 1] k2, float[5, {2 * C}] w,
    float[5] bw> {{
    c = Conv<pads = [1, 1, 1, 1]>(image, k, b) r0 = Relu(c) c1 = Conv<pads = [1, 1, 1, 1]>(r0, k1, b)
    s1 = Sigmoid(c1) m1 = Mul(c1, s1) a1 = Add(m1, r0)
    p1 = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(a1)
    q1 = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(p1) c2 = Conv(q1, k2, b)
    cc = Concat<axis = 1>(c2, q1) r = LeakyRelu(cc) m = GlobalAveragePool(r) f = Flatten(m)
    y = Gemm<transB = 1>(f, w, bw) }}"""
"""Parts that ONNX Runtime computes on integers in a file that it has optimised itself, and others that it does not."""


def optimised_again(level: str, kind: str, folder: Path) -> Path:
    """Writes a quantised network as ONNX Runtime has optimised it."""
    model = parse(MIXED)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        shrunk = array / np.float32(np.sqrt(array[0].size))
        tensor.CopyFrom(onnx.numpy_helper.from_array(shrunk, tensor.name))
    source = quantised(model, kind, folder)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / "again.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return folder / "again.onnx"


def quantised(model: onnx.ModelProto, kind: str, folder: Path) -> Path:
    onnx.save(model, folder / "float.onnx")
    options = {**FORMATS[kind], **WEIGHT_RANGE}
    quantize_static(folder / "float.onnx", folder / "quantised.onnx", Pictures(pictures(8, 1)), **options)
    return folder / "quantised.onnx"


def optimised(model: str | bytes, folder: Path) -> collections.Counter[str]:
    """Counts the operators that ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def answers(path: Path, images: np.ndarray, level: str = "ENABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"image": images})[
        0
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_it_exports_and_says_what_it_measured(residual: onnx.ModelProto, kind: str, tmp_path: Path):
    source, path = quantised(residual, kind, tmp_path), tmp_path / "masked.onnx"
    masktool.export(source, path, masking="fill")
    assert not check_export(path).failed  # on the same images, in the range of the input's quantisation
    parity = masktool.export(source, path).metadata.parity
    assert parity["probes"] == "range"
    assert "ones_unfused" in parity
    assert not check_export(path, load_source(source)).failed
    images = pictures(40, 2)
    if kind.startswith("QDQ"):  # of an integer operator nothing without integers can be asked
        assert parity["ones_unfused"] <= 1e-5
        np.testing.assert_allclose(
            answers(path, images, "DISABLE_ALL"), answers(source, images, "DISABLE_ALL"), rtol=0, atol=1e-5
        )
    step = np.abs(answers(source, images)).max() / 127
    assert np.abs(answers(path, images) - answers(source, images)).max() <= 2 * step


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.startswith("QOperator")])
def test_integer_operators_stay_integer_behind_a_join(residual: onnx.ModelProto, kind: str, tmp_path: Path):
    source = quantised(residual, kind, tmp_path)
    canonical = ir.to_proto(canonicalise(ir.load(source))).SerializeToString()
    found, expected = optimised(canonical, tmp_path), optimised(str(source), tmp_path)
    for operator in ("QLinearConv", "QLinearAdd"):
        assert found[operator] == expected[operator] > 0


def test_a_quantised_pad_value_becomes_a_number(residual: onnx.ModelProto, tmp_path: Path):
    canonical = canonicalise(ir.load(quantised(residual, "QDQ", tmp_path)))
    (pad,) = [node for node in canonical.graph if node.op_type == "Pad"]
    value = ir.convenience.get_const_tensor(pad.inputs[2])
    assert value is not None
    assert value.numpy().item() == 0


def test_what_leaves_the_graph_as_int8_stays_int8():
    model = parse(
        """<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>
        g (float[N, 2, 4, 4] image) => (int8[N, 2, 4, 4] y) <float s, int8 z>
        { q = QuantizeLinear(image, s, z) y = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z) }""",
        s=0.02, z=3,
    )  # fmt: skip
    canonical = canonicalise(ir.from_proto(model))
    assert canonical.graph.outputs[0].dtype == ir.DataType.INT8
    images = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(each.SerializeToString()) for each in (model, ir.to_proto(canonical))]
    found = [session.run(None, {"image": images})[0] for session in sessions]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("masking", ["layer", "partial", "fill"])
@pytest.mark.parametrize(("level", "kind"), [("EXTENDED", "QDQ"), ("ALL", "QDQ per channel")])
def test_what_onnx_runtime_fuses_in_the_masked_graph_alone_is_no_defect(
    level: str, kind: str, masking: Masking, tmp_path: Path
):
    source, path = optimised_again(level, kind, tmp_path), tmp_path / "masked.onnx"
    parity = masktool.export(source, path, masking=masking).metadata.parity
    assert parity["ones"] > 1e-5
    assert parity["ones_unfused"] <= 1e-5
    assert parity["source_spread"] <= 1e-5 < parity["masked_spread"]
    assert parity["ones"] <= 2 * parity["masked_spread"]
    assert not check_export(path, load_source(source)).failed
    assert not check_export(path).failed
    images = pictures(40, 2)
    difference = np.abs(answers(path, images, "DISABLE_ALL") - answers(source, images, "DISABLE_ALL"))
    assert np.mean(difference > 1e-5) <= 0.01  # QGemm, in the file, rounds a number between two steps otherwise
    assert difference.max() <= 0.01 * np.abs(answers(source, images)).max()


@pytest.mark.parametrize("share", [1.02, 0.9])
def test_a_defect_behind_what_onnx_runtime_fuses_is_still_one(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = preparation.mask_model

    def spoil(model, *arguments, **options):
        whole(model, *arguments, **options)
        name, weight = next(
            (name, each) for name, each in model.graph.initializers.items() if name.startswith("w_scale")
        )
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(share), name=name)

    monkeypatch.setattr(preparation, "mask_model", spoil)
    monkeypatch.setattr(saturation, "read_processor_flags", frozenset)  # of one on which no sums saturate
    with pytest.raises(MasktoolError, match="this is a defect of masktool") as caught:
        masktool.export(optimised_again("EXTENDED", "QDQ", tmp_path), tmp_path / "masked.onnx")
    assert "masked_spread" not in str(caught.value)
