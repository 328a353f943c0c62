"""Images of integers: the mask starts behind the Cast or the DequantizeLinear, and the input stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import every_value
from networks.integer_sums import WEIGHT_LIMIT
from onnx import TensorProto, helper, numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import layout_of
from masktool.exporters.sources import load_source

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_normal((6, 3, 3, 3)) * 0.3).astype(np.float32)
HEAD = RNG.standard_normal((5, 6)).astype(np.float32)


def network(dtype: str, layout: str = "NCHW", before: str = "") -> onnx.ModelProto:
    """Returns ((x − 100) / 60) → convolutions → scores; x of any type, float too."""
    shape = "N, 3, 16, 20" if layout == "NCHW" else "N, 16, 20, 3"
    kind = {"float32": "float"}.get(dtype, dtype)
    start = before or "i = Identity (x)"
    turn = "t = Identity (f)" if layout == "NCHW" else "t = Transpose <perm = [0, 3, 1, 2]> (f)"
    text = f"""<ir_version: 9, opset_import: ["" : 18]> g ({kind}[{shape}] x) => (float[N,5] y) {{
        {start} f = Cast <to = 1> (i) {turn}
        m = Constant <value = float {{100.0}}> () s = Constant <value = float {{60.0}}> ()
        d = Sub (t, m) n = Div (d, s) c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (n, w) r = Relu (c)
        p = GlobalAveragePool (r) q = Flatten (p) y = Gemm <transB = 1> (q, h) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend([numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(HEAD, "h")])
    return model


def draw(dtype: str, layout: str) -> np.ndarray:
    low = -128 if dtype == "int8" else 0
    pixels = np.random.default_rng(1).integers(low, 128, (2, 3, 16, 20))
    return (pixels if layout == "NCHW" else pixels.transpose(0, 2, 3, 1)).astype(dtype)


def half() -> np.ndarray:
    mask = np.ones((1, 1, 16, 20), np.float32)
    mask[..., 4:11, 5:14] = 0
    return mask


def plain(model: onnx.ModelProto, x: np.ndarray) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@every_value(dtype=TYPES, masking=["layer", "partial", "fill"])
def test_every_integer_type(dtype: str, masking: Any, tmp_path: Path) -> None:
    x, mask, layout = draw(dtype, "NHWC"), half(), "NHWC"
    metadata = masktool.export(network(dtype, layout), tmp_path / "m.onnx", masking=masking).metadata
    assert metadata.layout == layout
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_array_equal(session(x), plain(network(dtype, layout), x))
        np.testing.assert_array_equal(session(x, np.ones_like(mask)), plain(network(dtype, layout), x))
        masked = session(x, mask)
        assert np.abs(masked - session(x)).max() > 0.01
        for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            spoilt = np.where(mask.transpose(0, 2, 3, 1) == 0, np.array(extreme, dtype), x)
            np.testing.assert_array_equal(session(spoilt, mask), masked)
    # the same network without the Cast in front takes the same pixels as floats, under the same mask
    masktool.export(network("float32", layout), tmp_path / "f.onnx", masking=masking)
    with masktool.load(tmp_path / "f.onnx") as session:
        np.testing.assert_allclose(session(x.astype(np.float32), mask), masked, rtol=1e-5, atol=1e-6)


@every_value(layout=["NCHW", "NHWC"], baseline=["mean", "black", "grey", "10,20,30", "image-mean", "blur", "noise"])
def test_every_baseline_on_bytes(baseline: str, layout: str, tmp_path: Path) -> None:
    x, mask = draw("uint8", layout), half()
    path = tmp_path / "m.onnx"
    masktool.export(network("uint8", layout), path, masking="fill", baseline=baseline)
    with masktool.load(path) as session:
        np.testing.assert_array_equal(session(x, np.ones_like(mask)), plain(network("uint8", layout), x))
        if baseline in ("mean", "black", "10,20,30", "grey"):
            colour = {"mean": 0, "black": 0, "grey": 128}.get(baseline, np.array([10, 20, 30]))  # 127.5 is rounded
            where = mask.transpose(0, 2, 3, 1) == 0
            moved = x if layout == "NHWC" else x.transpose(0, 2, 3, 1)
            filled = np.where(where, np.asarray(colour), moved).astype(np.uint8)
            filled = filled if layout == "NHWC" else np.ascontiguousarray(filled.transpose(0, 3, 1, 2))
            np.testing.assert_allclose(session(x, mask), plain(network("uint8", layout), filled), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "before",
    [
        "i = Transpose <perm = [0, 1, 3, 2]> (x)",
        "k = Constant <value_ints = [2, 1, 0]> () i = Gather <axis = 1> (x, k)",
        "o = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> () i = Pad (x, o)",
    ],
)
def test_what_moves_integers_in_front_of_the_cast(before: str, tmp_path: Path) -> None:
    x, mask = draw("uint8", "NCHW"), half()
    masktool.export(network("uint8", before=before), tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        masked = session(x, mask)
        np.testing.assert_array_equal(session(np.where(mask == 0, np.uint8(255), x), mask), masked)
        np.testing.assert_array_equal(session(x), plain(network("uint8", before=before), x))


def test_an_operator_on_integers_is_refused_by_name_and_fill_takes_it(tmp_path: Path) -> None:
    model = network("uint8", before="i = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)")
    with pytest.raises(MasktoolError, match=r"MaxPool.*uint8"):
        masktool.export(model, tmp_path / "m.onnx")
    assert masktool.export(model, tmp_path / "m.onnx", masking="fill").metadata.parity["ones"] == 0


def quantised(dtype: str, *, linear: bool, pad: int = 1) -> onnx.ModelProto:
    """Returns a network on quantised pixels: QLinearConv, or a DequantizeLinear in front of a float convolution."""
    pads = f"pads = [{pad}, {pad}, {pad}, {pad}]"
    zero = 128 if dtype == "uint8" else -7
    # scales whose products do not fall on halves, where an integer and a float kernel may round apart
    scales = f"""xs = Constant <value = float {{0.0213}}> () xz = Constant <value = {dtype} {{{zero}}}> ()
        ws = Constant <value = float {{0.0117}}> () wz = Constant <value = int8 {{0}}> ()
        ys = Constant <value = float {{0.0531}}> () yz = Constant <value = uint8 {{3}}> ()"""
    if linear:
        body = f"q = QLinearConv <{pads}> (x, xs, xz, w, ws, wz, ys, yz) c = DequantizeLinear (q, ys, yz)"
    else:
        body = f"""d = DequantizeLinear (x, xs, xz) k = DequantizeLinear (w, ws, wz)
            e = Conv <{pads}> (d, k) q = QuantizeLinear (e, ys, yz) c = DequantizeLinear (q, ys, yz)"""
    if dtype == "int8":
        scales = scales.replace("yz = Constant <value = uint8 {3}>", "yz = Constant <value = int8 {3}>")
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]> g ({dtype}[N,3,16,20] x) => (float[N,6] y) {{
        {scales} {body} r = Relu (c) p = GlobalAveragePool (r) y = Flatten (p) }}"""
    )
    weight = np.random.default_rng(2).integers(-WEIGHT_LIMIT, WEIGHT_LIMIT, (6, 3, 3, 3)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


@every_value(dtype=["uint8", "int8"], linear=[True, False])
def test_quantised_images(dtype: str, linear: bool, tmp_path: Path) -> None:
    model, x, mask = quantised(dtype, linear=linear), draw(dtype, "NCHW"), half()
    for masking in ("layer", "fill"):
        metadata = masktool.export(model, tmp_path / "m.onnx", masking=masking).metadata
        assert metadata.parity["ones"] == 0
        assert metadata.parity["invariance"] == 0
        with masktool.load(tmp_path / "m.onnx") as session:
            masked = session(x, mask)
            for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
                np.testing.assert_array_equal(session(np.where(mask == 0, np.array(extreme, dtype), x), mask), masked)


def test_a_constant_image_stays_what_it_is_with_a_hole(tmp_path: Path) -> None:
    """What is missing is filled from its neighbours: of an image of one colour nothing changes, whatever 0 means."""
    model = quantised("uint8", linear=True, pad=0)
    masktool.export(model, tmp_path / "m.onnx")
    x = np.full((1, 3, 16, 20), 200, np.uint8)
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_allclose(session(x, half()), session(x), rtol=1e-5)


# Photographs and arrays


def test_photographs_go_in_as_pixels(tmp_path: Path) -> None:
    source = load_source(network("uint8", "NHWC"))
    assert any("uint8" in note and "scale 1" in note for note in source.notes)
    masktool.export(source, tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.metadata.preprocessing is not None
        assert session.metadata.preprocessing.scale == 1
        x = draw("uint8", "NHWC")
        np.testing.assert_array_equal(session(x.astype(np.float32)), session(x))
        np.testing.assert_array_equal(session(x.astype(np.int64)), session(x))
        for wrong in (x.astype(np.float32) / 255, x.astype(np.float32) - 200, np.where(x > 3, np.nan, 1.0)):
            with pytest.raises(MasktoolError, match="whole numbers from 0 to 255"):
                session(wrong)


def test_a_preprocessing_of_fractions_is_refused(tmp_path: Path) -> None:
    source = load_source(network("uint8", "NHWC"))
    assert source.preprocessing is not None
    wrong = masktool.contract.Preprocessing(size=(16, 20), resize="exact")  # scale 1/255
    with pytest.raises(MasktoolError, match=r"whole numbers from 0 to 255 for pixels 0\.\.255"):
        masktool.export(source, tmp_path / "m.onnx", preprocessing=wrong)
    assert not (tmp_path / "m.onnx").exists()


def test_no_gradients_with_respect_to_integers(tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match="no gradient with respect to integers"):
        masktool.export(network("int32"), tmp_path / "m.onnx", gradient="logit")


def test_a_float_input_is_the_image_where_there_is_one() -> None:
    model = network("float32")
    model.graph.input.append(helper.make_tensor_value_info("grid", TensorProto.INT64, ["N", 2, 4, 4]))
    assert load_source(model).image_input == "x"
    assert load_source(network("uint8", "NHWC"), image_input="x").image_input == "x"
    image = load_source(network("uint8", "NHWC")).model.graph.inputs[0]
    assert layout_of(image) == "NHWC"
