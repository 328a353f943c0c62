"""Networks that return feature maps beside their scores: maps are 0 under the mask, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import masktool
from masktool.contract import Masking
from masktool.errors import MasktoolError

HEAD = '<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, 8, 8] x) => '
CONV = "r = Conv <pads = [1, 1, 1, 1]> (x, w) "
SCORES = "f = GlobalAveragePool (g0) h = Flatten (f) y = Gemm (h, v)"
GRAPHS = {
    "logits and the map in front of an activation": (
        "(float[N, 5] y, float[N, 4, 8, 8] r) { " + CONV + "g0 = Relu (r) " + SCORES + " }"
    ),
    "two maps, one made of the other, both read again": (
        "(float[N, 4, 8, 8] r, float[N, 4, 8, 8] s, float[N, 5] y) { "
        + CONV
        + "s = Sigmoid (r) g0 = Add (s, r) "
        + SCORES
        + " }"
    ),
    "one map twice, under two names": (
        "(float[N, 5] y, float[N, 4, 8, 8] r, float[N, 4, 8, 8] again) { "
        + CONV
        + "again = Identity (r) g0 = Relu (r) "
        + SCORES
        + " }"
    ),
    "a map read by a window": (
        "(float[N, 4, 8, 8] r, float[N, 5] y) { "
        + CONV
        + "g0 = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r) "
        + SCORES
        + " }"
    ),
    "the image through an Identity": (
        "(float[N, 5] y, float[N, 3, 8, 8] r) { r = Identity (x) g0 = Conv (x, w) " + SCORES + " }"
    ),
    "maps alone": "(float[N, 4, 8, 8] r, float[N, 4, 8, 8] s) { " + CONV + "s = Sigmoid (r) }",
}


def write(folder: Path, text: str) -> Path:
    """Writes a network with random weights."""
    model = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    for name, shape in {"w": (4, 3, 3, 3), "v": (4, 5)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    path = folder / "plain.onnx"
    onnx.save(model, path)
    return path


def open_quietly(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", GRAPHS)
def test_returned_maps_are_zero_under_the_mask_alone(name: str, tmp_path: Path) -> None:
    source, target = write(tmp_path, GRAPHS[name]), tmp_path / "masked.onnx"
    masktool.export(source, target)
    plain, masked = open_quietly(source), open_quietly(target)
    assert [output.name for output in masked.get_outputs()] == [output.name for output in plain.get_outputs()]
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    for expected, got in zip(
        plain.run(None, {"x": images}), masked.run(None, {"x": images, "mask": np.ones((2, 1, 8, 8), "f")}), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    mask = np.ones((1, 1, 8, 8), np.float32)
    mask[..., :5] = 0  # one more column of these is seen by a 3 x 3 window
    for value in masked.run(None, {"x": images, "mask": mask}):
        if value.ndim == 4:
            assert (value[..., :4] == 0).all()
            assert np.abs(value[..., 5:]).max() > 0


@pytest.mark.parametrize("asked", ["r", None])
def test_a_returned_map_has_the_gradient_of_the_scores(asked: str | None, tmp_path: Path) -> None:
    """The mean over 64 places, then one row of weights: the gradient behind the activation is known."""
    text = "(float[N, 5] y, float[N, 4, 8, 8] r) { " + CONV + "g0 = Identity (r) " + SCORES + " }"
    source, target = write(tmp_path, text), tmp_path / "masked.onnx"
    assert masktool.export(source, target, gradient="logit", feature_map=asked).metadata.feature_map == "r"
    weights = onnx.numpy_helper.to_array(onnx.load(source).graph.initializer[1])
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32), "target": np.array([2])}
    (gradient,) = open_quietly(target).run(["gradient_feature_map"], feeds)
    np.testing.assert_allclose(gradient, np.broadcast_to(weights[:, 2, None, None] / 64, (1, 4, 8, 8)), rtol=1e-6)


def test_a_map_that_the_scores_do_not_depend_on_has_no_gradient(tmp_path: Path) -> None:
    text = "(float[N, 5] y, float[N, 4, 8, 8] s) { " + CONV + "g0 = Relu (r) s = Sigmoid (r) " + SCORES + " }"
    with pytest.raises(MasktoolError, match=r"no such feature map \(s\).*on which the scores depend"):
        masktool.export(write(tmp_path, text), tmp_path / "masked.onnx", gradient="logit", feature_map="s")


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_the_image_itself_is_no_output(masking: str, tmp_path: Path) -> None:
    text = "(float[N, 5] y, float[N, 3, 8, 8] x) { g0 = Conv (x, w) " + SCORES + " }"
    with pytest.raises(MasktoolError, match="an output is the image input itself"):
        masktool.export(write(tmp_path, text), tmp_path / "masked.onnx", masking=masking)


@pytest.mark.parametrize("masking", ["layer", "partial"])
@pytest.mark.parametrize("dtype", ["bool", "int16", "int32", "uint8", "uint16", "uint64", "double", "float16"])
def test_maps_of_every_type_are_zero_under_the_mask(dtype: str, masking: Masking, tmp_path: Path) -> None:
    """ONNX Runtime chooses between numbers of some types alone."""
    number = onnx.TensorProto.DataType.Value({"float16": "FLOAT16"}.get(dtype, dtype.upper()))
    cast = f"s = Abs (r) t = Add (s, s) m = Cast <to = {number}> (t) " if dtype != "bool" else "m = Greater (r, zero) "
    source = write(
        tmp_path,
        f"(float[N, 5] y, {dtype}[N, 4, 8, 8] m) <float zero = {{0.1}}> {{ {CONV} {cast} g0 = Relu (r) {SCORES} }}",
    )
    masktool.export(source, tmp_path / "masked.onnx", masking=masking)
    mask = np.ones((1, 1, 8, 8), np.float32)
    mask[..., 3:] = 0
    images = np.random.default_rng(3).standard_normal((1, 3, 8, 8), np.float32)
    (kept,) = open_quietly(source).run(["m"], {"x": images})
    (found,) = open_quietly(tmp_path / "masked.onnx").run(["m"], {"x": images, "mask": mask})
    assert found.dtype == kept.dtype
    assert kept[..., 4:].any()
    assert not found[..., 4:].any()  # a window at the edge sees what is kept
    (whole,) = open_quietly(tmp_path / "masked.onnx").run(["m"], {"x": images})
    np.testing.assert_array_equal(whole, kept)
