"""The cell rule in every kind of file: what an export measures is within its limits, and masks act as in the usual one.

The network has a narrow sampler of every form, as exporters write it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from networks.integer_sums import WEIGHT_RANGE
from networks.small_graphs import parse
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import masktool
from masktool.exporters.check import check_masked
from masktool.exporters.heads import LAST
from masktool.exporters.sources import load_source

NARROW = """<ir_version: 10, opset_import: ["" : 18]> narrow (float[N, 3, 48, 48] image) => (float[N, 5] logits)
    <float[16, 3, 3, 3] stem, float[16, 16, 3, 3] b1, float[16, 16, 1, 1] s1, float[16, 16, 3, 3] b2,
    float[16, 16, 1, 1] s2, float[16, 64, 3, 3] b3, float[16, 5] head,
    int64[2] zero = {0, 0}, int64[2] one = {1, 1}, int64[2] row = {1, 0}, int64[2] column = {0, 1},
    int64[2] end = {2147483647, 2147483647}, int64[2] axes = {2, 3}, int64[2] step = {2, 2}> {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem) x = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, b1) d = Conv <strides = [2, 2]> (x, s1)
    e = Add (c, d) f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (f, b2)
    h = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (f) i = Conv (h, s2) j = Add (g, i) k = Relu (j)
    p = Slice (k, zero, end, axes, step) q = Slice (k, one, end, axes, step)
    r = Slice (k, row, end, axes, step) s = Slice (k, column, end, axes, step)
    t = Concat <axis = 1> (p, q, r, s) u = Conv <pads = [1, 1, 1, 1]> (t, b3) v = Relu (u)
    w = AveragePool <kernel_shape = [2, 2], strides = [3, 3]> (v)
    pooled = GlobalAveragePool (w) flat = Flatten (pooled) logits = MatMul (flat, head) }"""
KINDS = {
    "gradients": {"gradient": "logit"},
    "gradients without indices": {"gradient": "logit", "for_provider": "webgpu"},
    "a plain branch": {"plain_branch": True},
    "portable": {"portable": True},
    "a head": {"head": LAST},
    "a mask that is required": {"mask_required": True},
    "half precision": {"precision": "fp16"},
}
HALF = 1e-2
SINGLE = 1e-5
"""Relative to the largest score."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, and its masked file under the cell rule."""
    folder = tmp_path_factory.mktemp("narrow")
    model = parse(NARROW)
    for tensor in model.graph.initializer:  # as large in front of each layer as behind it
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            shrunk = array / np.float32(np.sqrt(array[0].size if array.ndim > 2 else len(array)))
            tensor.CopyFrom(onnx.numpy_helper.from_array(shrunk, tensor.name))
    onnx.save(model, folder / "narrow.onnx")
    masktool.export(folder / "narrow.onnx", folder / "masked.onnx", output_kind="logits", rule="cell")
    return folder


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Returns one image, and masks of specks that keep a pixel in 30."""
    rng = np.random.default_rng(4)
    image = rng.standard_normal((1, 3, 48, 48)).astype(np.float32)
    return image, (rng.random((6, 1, 48, 48)) < 1 / 30).astype(np.float32)


def run(path: Path, image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the scores of each image under its mask, one by one."""
    with masktool.load(path, "cpu") as session:
        return np.concatenate([session.run(image, mask[None])["logits"] for mask in masks])


def test_the_rules_differ_on_this_network(folder, tmp_path):
    masktool.export(folder / "narrow.onnx", tmp_path / "published.onnx", output_kind="logits", rule="published")
    cell, published = (run(path, *draw()) for path in (folder / "masked.onnx", tmp_path / "published.onnx"))
    assert (np.abs(cell).max(1) > 0).all()
    assert np.abs(cell - published).max() > 0.1 * np.abs(cell).max()


@pytest.mark.parametrize("kind", quickly(["gradients", "portable", "a head"], KINDS))
def test_masks_act_as_in_the_usual_file(kind, folder, tmp_path):
    path = tmp_path / "other.onnx"
    exported = masktool.export(folder / "narrow.onnx", path, output_kind="logits", rule="cell", **KINDS[kind])
    tolerance = HALF if kind == "half precision" else SINGLE
    assert exported.metadata.rule == "cell"
    assert exported.metadata.parity["ones"] <= (HALF if kind == "half precision" else 0)
    assert exported.metadata.parity["invariance"] == 0
    expected = run(folder / "masked.onnx", *draw())
    np.testing.assert_allclose(run(path, *draw()), expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if kind not in ("portable", "half precision"):  # is measured again against the source, as it was
        check = check_masked(path, load_source(folder / "narrow.onnx"))
        assert not check.failed
        assert check.metadata.rule == "cell"


def test_nothing_under_the_mask_matters(folder):
    image, masks = draw()
    poisoned = np.where(masks == 0, np.float32(np.nan), image)
    with masktool.load(folder / "masked.onnx", "cpu") as session:
        clean = session.run(image, masks)["logits"]
        np.testing.assert_array_equal(session.run(poisoned, masks)["logits"], clean)


def test_gradients_reach_the_pixels_that_are_kept_and_no_other(folder, tmp_path):
    path = tmp_path / "gradients.onnx"
    masktool.export(folder / "narrow.onnx", path, output_kind="logits", rule="cell", gradient="logit")
    image, masks = draw()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for mask in masks[:, None]:
        feed = {"image": image, "mask": mask, "target": np.array([2], np.int64)}
        (gradient,) = session.run(["gradient_image"], feed)
        assert (gradient.any(1) <= (mask[:, 0] > 0)).all()
        # an even 1 in 4 of the pixels lies where a strided sampler looks; under the cell rule the others count too
        assert gradient.any(1).sum() > 0.8 * mask.sum()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {"sliding_window_shapes": 16, "strides": 16}),
        ("rise", {"n_samples": 8}),
        ("integrated-gradients", {"n_samples": 4}),
    ],
)
def test_a_file_that_explains_itself_masks_by_the_rule(method, options, folder, tmp_path):
    path = tmp_path / "explained.onnx"
    exported = masktool.export_explained(
        folder / "narrow.onnx", path, method, rule="cell", output_kind="logits", **options
    )
    assert exported.metadata.rule == "cell"
    assert exported.metadata.parity["explanation"] <= SINGLE


class Images(CalibrationDataReader):
    """Random images to calibrate with."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.left = [{"image": rng.standard_normal((1, 3, 48, 48)).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next image."""
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_a_quantised_network_stays_exact(form, folder, tmp_path):
    quantize_static(
        folder / "narrow.onnx", tmp_path / "quantised.onnx", Images(), quant_format=form, **WEIGHT_RANGE
    )  # fmt: skip
    path = tmp_path / "masked.onnx"
    found = masktool.export(tmp_path / "quantised.onnx", path, output_kind="logits", rule="cell").metadata
    assert found.parity["invariance"] == 0
    scores = run(path, *draw())
    expected = run(folder / "masked.onnx", *draw())
    assert np.abs(scores - expected).max() < 0.2 * np.abs(expected).max()
