"""``--masking fill`` takes any network: many kinds, most of them no CNN, against the plain model on filled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import masktool
from benchmarks.fill_graphs import SIDE, build_all

NETWORKS = build_all()
ONE_BY_ONE = {
    "decision by If on brightness",
    "Loop over images",
    "Loop until it is bright enough",
    "mean of bright pixels by NonZero",
    "NMS in the graph",
    "ScatterND into the scores",
    "softmax over the batch",
    "statistics of the batch at hand",
    "trees on pixels",
    "linear classifier of scikit-learn",
}
"""Those whose images go one at a time; of all others it is proved that they go together."""


def draw(dtype: np.dtype, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and masks of half of their places."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 3, SIDE, SIDE)) if dtype.kind == "u" else rng.random((count, 3, SIDE, SIDE))
    return images.astype(dtype), (rng.random((count, 1, SIDE, SIDE)) < 0.5).astype(np.float32)


def run_plain(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """Returns what the plain model's first output gives an image alone, in a fixed batch among its copies."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    found = session.run(None, {"x": np.repeat(image[None], batch if isinstance(batch, int) else 1, axis=0)})[0]
    if isinstance(found, list):  # of dictionaries
        return np.array([list(row.values()) for row in found], np.float32)[:1]
    return np.asarray(found)[:1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_sees_the_filled_image(name: str, tmp_path: Path):
    _, model = NETWORKS[name]
    onnx.save(model, tmp_path / "plain.onnx")
    metadata = masktool.export(
        tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill", class_output="none"
    ).metadata
    assert (metadata.batching == "one") == (name in ONE_BY_ONE)
    with masktool.load(tmp_path / "masked.onnx") as session:
        dtype = np.dtype(np.uint8 if name == "uint8 image" else np.float32)
        images, masks = draw(dtype)
        filled = (images * masks).astype(dtype)
        spoiled = np.where(masks == 0, 255 if dtype.kind == "u" else np.nan, images).astype(dtype)
        found = next(iter(session.run(spoiled, masks).values()))
        whole = next(iter(session.run(images).values()))
    for index in range(len(images)):
        for answer, image in ((found, filled[index]), (whole, images[index])):
            expected = run_plain(model, image)
            np.testing.assert_allclose(np.reshape(answer[index], expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_most_of_them_are_no_cnn():
    assert sum(no_cnn for no_cnn, _ in NETWORKS.values()) >= 10
