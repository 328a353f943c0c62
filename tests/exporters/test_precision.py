"""``precision="fp16"``: what computes in float16, what stays in float32, and what is said of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.small_graphs import classifier, parse
from networks.unusual_graphs import half_precision
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.precision_source import narrow_again
from masktool.exporters.sources import load_source

ROUNDING = 1e-2
"""Relative to max |output|: float16 rounds at each of a few layers."""
DEEP = """
<ir_version: 10, opset_import: ["" : 20]>
deep (float[N, 3, 16, 16] image) => (float[N, 10] logits)
<float[32, 3, 3, 3] k, float[32] b, float[64, 32, 3, 3] l, float[64, 64, 3, 3] m, float[64, 10] w>
{
    c1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, k, b) r1 = Relu(c1)
    c2 = Conv<pads = [1, 1, 1, 1]>(r1, l) r2 = Relu(c2)
    c3 = Conv<pads = [1, 1, 1, 1]>(r2, m) s = Add(c3, r2) r3 = Relu(s)
    p = GlobalAveragePool(r3) f = Flatten(p) logits = MatMul(f, w)
}
"""


def calm(text: str, **weights: object) -> onnx.ModelProto:
    """A graph whose random weights are as small as trained ones: nothing grows from layer to layer."""
    model = parse(text, **weights)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim > 1 and tensor.name not in weights:
            scale = np.sqrt(values[0].size if values.ndim == 4 else len(values)).astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values / scale, tensor.name))
    return model


def draw(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, side, side)).astype(np.float32)


def cut(side: int, count: int = 2) -> np.ndarray:
    masks = np.ones((count, 1, side, side), np.float32)
    masks[:, :, 2 : side // 2 + 3, 2 : side - 2] = 0
    return masks


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The plain network in float16, before it takes a mask."""
    return ir.to_proto(narrow_again(load_source(model), None, None).model)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_the_file_has_half_the_size_and_float32_at_its_ends(tmp_path: Path):
    model = calm(DEEP)
    wide, half = (masktool.export(model, tmp_path / f"{name}.onnx", precision=name) for name in ("fp32", "fp16"))
    assert (wide.metadata.precision, half.metadata.precision) == (None, "fp16")
    assert half.n_bytes < 0.56 * wide.n_bytes
    with masktool.load(half.path, "cpu") as session, masktool.load(wide.path, "cpu") as right:
        images, masks = draw(16), cut(16)
        for given in ((images,), (images, masks)):
            found, expected = session.run(*given)["logits"], right.run(*given)["logits"]
            assert found.dtype == np.float32
            assert 0 < relative(found, expected) <= ROUNDING
        images[np.broadcast_to(masks == 0, images.shape)] = np.nan
        assert np.array_equal(session.run(images, masks)["logits"], session.run(draw(16), masks)["logits"])
    weights = [each for each in onnx.load(half.path).graph.initializer if each.name != "mask"]
    wide_ones = [each for each in weights if each.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(each.dims) == 1 for each in wide_ones)  # numbers of the rules
    figures = half.metadata.parity["fp32"]
    assert 0 < figures["scores"] <= ROUNDING
    assert (figures["first_choice"], figures["lead_lost"]) == (1.0, 0.0)
    assert set(figures["maps"]) == {"occlusion", "rise"}
    assert min(figures["maps"].values()) > 0.99


@pytest.mark.parametrize("masking", ["layer", "partial", "fill"])
def test_a_mask_of_ones_gives_exactly_the_float16_network(masking: str, tmp_path: Path):
    """As ONNX defines the operators; a runtime that computes in float32 between casts rounds where it likes."""
    model = calm(DEEP)
    masktool.export(model, tmp_path / "masked.onnx", masking=masking, precision="fp16")
    feed = {"image": draw(16)}
    (expected,) = ReferenceEvaluator(narrowed(model)).run(None, feed)
    masked = ReferenceEvaluator(onnx.load(tmp_path / "masked.onnx"))
    (found,) = masked.run(None, feed | {"mask": np.ones((1, 1, 16, 16), np.float32)})
    assert np.array_equal(found, expected)
    (hidden,) = masked.run(None, feed | {"mask": cut(16, 1)})
    with masktool.load(tmp_path / "masked.onnx", "cpu") as session:
        assert relative(hidden, session.run(feed["image"], cut(16, 1))["logits"]) <= ROUNDING


def test_it_agrees_with_the_converter_of_onnx_runtime():
    model = calm(DEEP)
    feed = {"image": draw(16)}
    other = convert_float_to_float16(model, keep_io_types=True)
    ours, theirs = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for each in (narrowed(model), other)
    )
    assert relative(ours, theirs) <= ROUNDING


MEANS = {
    "a sum divided by hand": "s = ReduceSum<keepdims = 0>(c, axes) f = Mul(s, part)",
    "a global mean": "g = GlobalAveragePool(c) f = Flatten(g)",
    "a norm": "q = ReduceL2<keepdims = 0>(c, axes) f = Mul(q, part)",
}


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_over_a_large_map_does_not_overflow(name: str, tmp_path: Path):
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]> means (float[N, 3, 224, 224] image) => (float[N, 4] logits)
    <float[4, 3, 1, 1] k, float[4] b, float part, int64[2] axes, float[4, 4] w>
    {{ c = Conv(image, k, b) {MEANS[name]} logits = MatMul(f, w) }}
    """
    model = calm(text, b=[300, 200, 100, 50], part=1 / 224**2, axes=[2, 3])
    exported = masktool.export(model, tmp_path / "masked.onnx", precision="fp16")
    assert any("sums of many numbers" in note for note in exported.notes)
    feed = {"image": draw(224, 1), "mask": cut(224, 1)}
    (found,) = ReferenceEvaluator(onnx.load(tmp_path / "masked.onnx")).run(None, feed)
    masktool.export(model, tmp_path / "wide.onnx")
    with masktool.load(tmp_path / "wide.onnx", "cpu") as session:
        assert relative(found, session.run(feed["image"], feed["mask"])["logits"]) <= ROUNDING
    if name == "a sum divided by hand":  # what a conversion of every node makes of it
        everything = ir.from_proto(convert_float_to_float16(model, keep_io_types=True))
        everything.graph.sort()  # the converter appends its casts
        with np.errstate(over="ignore", invalid="ignore"):
            assert not np.isfinite(
                ReferenceEvaluator(ir.to_proto(everything)).run(None, {"image": feed["image"]})[0]
            ).all()


def scaled(body: str, **weights: object) -> onnx.ModelProto:
    return calm(
        f"""
        <ir_version: 10, opset_import: ["" : 20]> scaled (float[N, 3, 16, 16] image) => (float[N, 4] logits)
        <float[4, 3, 3, 3] k, float[4, 4, 3, 3] l, float factor, float epsilon, float[4, 4] w>
        {{ c = Conv<pads = [1, 1, 1, 1]>(image, k) {body} g = GlobalAveragePool(d) f = Flatten(g)
          logits = MatMul(f, w) }}
        """,
        **{"factor": 2.0, "epsilon": 1.0, **weights},
    )


STAYING = {
    "a weight beyond the range": (
        scaled("r = Div(c, factor) d = Mul(r, factor)", factor=1e6), "1 node with weights that float16 does not hold"
    ),
    "an epsilon that would become 0": (
        scaled("a = Abs(c) z = Sub(a, a) r = Add(z, epsilon) d = Div(z, r)", epsilon=1e-12),
        "1 node with divisions by computed numbers",
    ),
    "numbers beyond the range": (scaled("r = Mul(c, factor) d = Div(r, factor)", factor=4e4), "large numbers"),
    "a bound that bounds nothing": (scaled("d = Clip(c, , epsilon)", epsilon=3e38), None),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYING)
def test_what_float16_does_not_hold_stays_and_is_named(name: str, tmp_path: Path):
    model, note = STAYING[name]
    exported = masktool.export(model, tmp_path / "masked.onnx", precision="fp16")
    assert note is None or any(note in each for each in exported.notes)
    feed = {"image": draw(16), "mask": cut(16, 1)}
    (found,) = ReferenceEvaluator(onnx.load(tmp_path / "masked.onnx")).run(None, feed)
    masktool.export(model, tmp_path / "wide.onnx")
    with masktool.load(tmp_path / "wide.onnx", "cpu") as session:
        expected = session.run(feed["image"], feed["mask"])["logits"]
    assert np.abs(found - expected).max() <= ROUNDING * max(np.abs(expected).max(), 1e-6)


def test_a_branch_reads_what_was_computed_in_float16(tmp_path: Path):
    body = """
        n = ReduceMax<keepdims = 0>(c) yes = Greater(n, epsilon)
        d = If(yes) <then_branch = one () => (float[N, 4, 16, 16] a) { a = Relu(c) },
                     else_branch = two () => (float[N, 4, 16, 16] b) { b = Mul(c, factor) }>"""
    model = scaled(body)
    exported = masktool.export(model, tmp_path / "masked.onnx", masking="fill", precision="fp16")
    assert exported.metadata.parity["fp32"]["scores"] <= ROUNDING


REFUSED = {
    "bf16": (lambda: classifier(), "bf16", r"measured on ONNX Runtime's CPU provider, which has no bfloat16 convol"),
    "float16 already": (half_precision, "fp16", "computes in float16 already: half_precision|computes in float16"),
    "float32 of float16": (half_precision, "fp32", "computes in float16 already"),
    "unknown": (lambda: classifier(), "fp8", "unknown precision: expected fp32 | fp16 | bf16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused(name: str, tmp_path: Path):
    make, precision, message = REFUSED[name]
    with pytest.raises(MasktoolError, match=message):
        masktool.export(make(), tmp_path / "masked.onnx", precision=precision)
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_product_is_refused(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]> means (float[N, 3, 8, 8] image) => (float[N, 3] y)
    { p = GlobalAveragePool(image) y = Flatten(p) }"""
    with pytest.raises(MasktoolError, match="nothing in the network can compute in float16"):
        masktool.export(parse(text), tmp_path / "masked.onnx", masking="fill", precision="fp16")


def test_a_quantised_network_is_refused(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]> small (float[N, 3, 8, 8] image) => (float[N, 4] y)
    <float[4, 3, 3, 3] k, float scale, uint8 zero>
    { q = QuantizeLinear(image, scale, zero) d = DequantizeLinear(q, scale, zero) c = Conv(d, k)
      p = GlobalAveragePool(c) y = Flatten(p) }"""
    with pytest.raises(MasktoolError, match="the network is quantised"):
        masktool.export(parse(text, scale=0.1, zero=128), tmp_path / "masked.onnx", precision="fp16")


def test_gradients_are_added_in_float32_from_weights_of_float16(tmp_path: Path):
    model = calm(DEEP)
    wide, half = (
        masktool.export(model, tmp_path / f"{name}.onnx", precision=name, gradient="logit") for name in ("fp32", "fp16")
    )
    assert half.n_bytes < 0.75 * wide.n_bytes  # what gradients add to the graph is the same
    maps = half.metadata.parity["fp32"]["maps"]
    assert set(maps) == {"occlusion", "rise", "input-x-gradient", "grad-cam"}
    assert min(maps.values()) > 0.99
    assert any("computes in float32, from weights of 16 bits" in note for note in half.notes)
    found, expected = (masktool.load(each.path, "cpu").gradient(draw(16), target=3).image for each in (half, wide))
    assert 0 < relative(found, expected) <= 5 * ROUNDING


def test_a_module_of_torch(tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()
    exported = masktool.export(module, tmp_path / "masked.onnx", input_size=(16, 16), precision="fp16")
    with masktool.load(exported.path, "cpu") as session, torch.no_grad():
        (found,) = session.run(draw(16)).values()
        assert relative(found, module(torch.tensor(draw(16))).numpy()) <= ROUNDING


@pytest.mark.parametrize("gradient", [None, pytest.param("logit", marks=pytest.mark.slow)])
def test_a_check_narrows_the_source_again_and_compares_with_it_in_float32(gradient: str | None, tmp_path: Path):
    model, path = calm(DEEP), tmp_path / "masked.onnx"
    masktool.export(model, path, precision="fp16", gradient=gradient)
    check = masktool.check_export(path, model)
    verdicts = {verdict.figure: verdict for verdict in check.verdicts}
    assert not check.failed
    assert {"ones", "scores", "lead lost", "occlusion", "rise"} <= set(verdicts)
    assert verdicts["ones"].limit == ROUNDING
    assert verdicts["scores"].value == pytest.approx(
        masktool.describe(path).metadata.parity["fp32"]["scores"], rel=1e-3
    )
    assert not masktool.check_export(path).failed
    other = calm(DEEP, w=np.random.default_rng(5).standard_normal((64, 10)))
    failed = {verdict.figure for verdict in masktool.check_export(path, other).failed}
    assert {"ones", "scores"} <= failed


def quantised(tmp_path: Path) -> tuple[Path, Path]:
    """The network, and the same quantised by ONNX Runtime's own tool."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"image": draw(16, 8)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    float_path, path = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(calm(DEEP), float_path)
    quantize_static(float_path, path, Reader(), quant_format=QuantFormat.QDQ)
    return float_path, path


def test_a_quantised_file_is_compared_with_the_network_that_it_was_made_from(tmp_path: Path):
    float_path, path = quantised(tmp_path)
    masktool.export(path, tmp_path / "masked.onnx")
    check = masktool.check_export(tmp_path / "masked.onnx", path, against=float_path)
    verdicts = {verdict.figure: verdict for verdict in check.verdicts}
    assert not check.failed
    assert 0 < verdicts["scores"].value <= verdicts["scores"].limit
    assert {"occlusion", "rise"} <= set(verdicts)
    onnx.save(calm(DEEP, w=np.random.default_rng(5).standard_normal((64, 10))), float_path)
    failed = {verdict.figure for verdict in masktool.check_export(tmp_path / "masked.onnx", against=float_path).failed}
    assert "scores" in failed


def test_a_float32_file_is_compared_with_its_source_alone(tmp_path: Path):
    masktool.export(calm(DEEP), tmp_path / "masked.onnx")
    with pytest.raises(MasktoolError, match="computes in float32, and is compared with its source alone"):
        masktool.check_export(tmp_path / "masked.onnx", against=calm(DEEP))


def test_kept_exports_of_two_precisions_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(calm(DEEP), tmp_path / "deep.onnx")
    found = {}
    for precision in (None, "fp16"):
        with masktool.load(tmp_path / "deep.onnx", "cpu", precision=precision) as session:
            found[session.path] = session.metadata.precision
    assert sorted(map(str, found.values())) == ["None", "fp16"]
    with pytest.raises(MasktoolError, match="is masked already"):
        masktool.load(next(iter(found)), "cpu", precision="fp16")


@pytest.mark.parametrize("method", ["occlusion", "input-x-gradient"])
def test_a_file_that_explains_itself(method: str, tmp_path: Path):
    model = calm(DEEP)
    wide, half = (
        masktool.export_explained(model, tmp_path / f"{name}.onnx", method, precision=name, output_kind="logits")
        for name in ("fp32", "fp16")
    )
    assert half.metadata.precision == "fp16"
    assert half.n_bytes < 0.6 * wide.n_bytes
    found, expected = (
        onnxruntime.InferenceSession(each.path, providers=["CPUExecutionProvider"]).run(None, {"image": draw(16)})
        for each in (half, wide)
    )
    assert {each.dtype for each in found} == {np.dtype(np.float32)}
    assert relative(found[0], expected[0]) <= ROUNDING
    assert np.corrcoef(found[1].ravel(), expected[1].ravel())[0, 1] > 0.99
    assert not masktool.check_export(half.path, model).failed


def test_a_network_without_class_scores_is_compared_by_its_outputs(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]> maps (float[N, 3, 16, 16] image) => (float[N, 4, 16, 16] y)
    <float[4, 3, 3, 3] k> { y = Conv<pads = [1, 1, 1, 1]>(image, k) }"""
    exported = masktool.export(calm(text), tmp_path / "masked.onnx", precision="fp16")
    figures = exported.metadata.parity["fp32"]
    assert 0 < figures["scores"] <= ROUNDING
    assert (figures["first_choice"], figures["maps"]) == (None, {})
    assert not masktool.check_export(exported.path, calm(text)).failed


def test_a_signal_is_compared_by_its_maps(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]> signal (float[N, 3, 64] image) => (float[N, 4] y)
    <float[6, 3, 3] k, float[6, 4] w> { c = Conv<pads = [1, 1]>(image, k) a = Relu(c) p = GlobalAveragePool(a)
      f = Flatten(p) y = MatMul(f, w) }"""
    options = {"precision": "fp16", "class_output": "y", "gradient": "logit"}
    maps = masktool.export(calm(text), tmp_path / "masked.onnx", **options).metadata.parity["fp32"]["maps"]
    assert set(maps) == {"occlusion", "rise", "input-x-gradient"}
    assert min(maps.values()) > 0.9
