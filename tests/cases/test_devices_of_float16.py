"""Masked networks of float16 where nothing is wider: ONNX's reference implementation computes each node in float16.

ONNX Runtime's CPU provider computes most of them in float32 between two casts, and shows neither an overflow nor what
becomes of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import parse
from onnx.reference import ReferenceEvaluator

import masktool
from masktool.interface.check import check_export

TOLERANCE = 2e-2
"""Relative to max |output|: a few layers that round at every node."""
HEAD = '<ir_version: 10, opset_import: ["" : 20]> g (float16[N, 3, 16, 16] image) => (float16[N, 4] y)'
WEIGHTS = "<float16[6, 3, 3, 3] k, float16[6, 6, 3, 3] l, float16[6, 4] w>"
NETWORKS = {
    "convolutions": "a = Conv<pads = [1, 1, 1, 1]>(image, k) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, l)",
    "dilated": "a = Conv<pads = [1, 1, 1, 1]>(image, k) b = Relu(a) "
    "c = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(b, l)",
    "pools": "a = Conv<pads = [1, 1, 1, 1]>(image, k) b = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(a) "
    "c = AveragePool<kernel_shape = [2, 2]>(b)",
    "a gate": "a = Conv<pads = [1, 1, 1, 1]>(image, k) m = GlobalAveragePool(a) s = Sigmoid(m) c = Mul(a, s)",
    "a softmax over places": "a = Conv<pads = [1, 1, 1, 1]>(image, k) s = Softmax<axis = 3>(a) c = Mul(a, s)",
}


def holed(side: int = 16, edge: int = 2) -> np.ndarray:
    """A mask whose hole is wider than any window reaches."""
    mask = np.ones((1, 1, side, side), np.float32)
    mask[:, :, edge : side - edge, edge : side - edge] = 0
    return mask


@pytest.mark.parametrize("masking", ["layer", "partial"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_hole_without_known_neighbours_gives_numbers(name: str, masking: str, tmp_path: Path):
    end = "p = GlobalAveragePool(c) f = Flatten(p) y = MatMul(f, w)"
    model = parse(f"{HEAD} {WEIGHTS} {{ {NETWORKS[name]} {end} }}")
    path = tmp_path / "masked.onnx"
    masktool.export(model, path, masking=masking)
    rng = np.random.default_rng(0)
    feed = {"image": rng.standard_normal((1, 3, 16, 16)).astype(np.float16), "mask": holed()}
    (found,) = ReferenceEvaluator(onnx.load(path)).run(None, feed)
    assert np.isfinite(found).all()
    with masktool.load(path, "cpu") as session:
        (expected,) = session.run(feed["image"], feed["mask"]).values()
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_numbers_there_and_come_from_weights_of_16_bits(name: str, tmp_path: Path):
    model = parse(f"{HEAD} {WEIGHTS} {{ {NETWORKS[name]} p = GlobalAveragePool(c) f = Flatten(p) y = MatMul(f, w) }}")
    path = tmp_path / "gradient.onnx"
    exported = masktool.export(model, path, gradient="logit")
    assert any("computes in float32" in note for note in exported.notes)
    rng = np.random.default_rng(0)
    image, mask = rng.standard_normal((1, 3, 16, 16)).astype(np.float16), holed()
    written = onnx.load(path)
    feed = {"image": image, "mask": mask, "target": np.array([1])}
    scores, *gradients = ReferenceEvaluator(written).run(["y", "gradient_image", "gradient_mask"], feed)
    assert scores.dtype == np.float16
    assert all(np.isfinite(each).all() for each in gradients)
    with masktool.load(path, "cpu") as session:
        expected = session.gradient(image, mask, target=1).image
    assert np.abs(gradients[0] - expected).max() <= 1e-4 * np.abs(expected).max()
    halves = {each.name for each in written.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16}
    assert {"k", "w"} <= halves
    for source in (None, model):
        assert not check_export(path, source).failed
