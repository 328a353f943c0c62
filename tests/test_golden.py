"""The exported golden network against what its authors' implementation gave on the same weights."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import masktool

TOLERANCE = 1e-6
"""Absolute, on logits of at most 0.65."""


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict[str, np.ndarray]:
    """Images, masks and the published outputs, (8, ...) each."""
    return dict(np.load(data_dir / "golden" / "tiny_resnet_layer_masking.npz"))


@pytest.fixture(scope="module")
def session(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """The exported network, on the CPU provider in float32."""
    path = tmp_path_factory.mktemp("golden") / "masked.onnx"
    masktool.export(data_dir / "golden" / "tiny_resnet.onnx", path, rule="published")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_layer_masking_is_reproduced_on_all_eight_masks(session, golden):
    (logits,) = session.run(None, {"image": golden["image"], "mask": golden["mask"].astype(np.float32)})
    difference = np.abs(logits - golden["logits_layer_masking"]).max(axis=1)
    assert difference.shape == (8,)
    assert difference.max() <= TOLERANCE, difference


def test_mask_left_out_is_the_network_without_masks(session, golden):
    (logits,) = session.run(None, {"image": golden["image"]})
    assert np.abs(logits - golden["logits_unmasked"]).max() <= TOLERANCE


def test_the_masks_move_the_logits(golden):
    moved = np.abs(golden["logits_layer_masking"] - golden["logits_unmasked"]).max(axis=1)
    assert (moved[golden["mask"].min(axis=(1, 2, 3)) == 0] > 1000 * TOLERANCE).all()
