"""``masktool.train_masker`` takes preprocessing and labels in every form that its command takes."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

import masktool
from maskers.small import small_network
from masktool.exporters.presets import preprocessing_preset
from masktool.maskers.settings import TrainingSettings

ONE_STEP = TrainingSettings(epochs=1, batch=4, stages="all")
NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures of four named classes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(root / name / "0.png")
    return root


@pytest.mark.parametrize("form", ["name", *(pytest.param(each, marks=pytest.mark.slow) for each in ("file", "object"))])
def test_preprocessing_and_labels_in_every_form(folder, tmp_path, form, caplog, capsys):
    """What the user should know of it is logged, and nothing is printed."""
    expected = preprocessing_preset("imagenet", (16, 16))
    fields = {"mean": expected.mean, "std": expected.std, "size": [16, 16], "resize_to": expected.resize_to}
    (tmp_path / "steps.json").write_text(json.dumps(fields))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    preprocessing = {"name": "imagenet", "file": tmp_path / "steps.json", "object": expected}[form]
    labels = {"name": str(tmp_path / "names.txt"), "file": tmp_path / "names.txt", "object": NAMES}[form]
    with caplog.at_level(logging.INFO, logger="masktool"):
        trained = masktool.train_masker(
            small_network(),
            folder,
            tmp_path / "masker.onnx",
            input_size=(16, 16),
            preprocessing=preprocessing,
            labels=labels,
            settings=ONE_STEP,
        )
    assert any(record.getMessage().startswith("epoch 1 of 1") for record in caplog.records)
    assert capsys.readouterr() == ("", "")
    assert trained.metadata.labels == tuple(NAMES)
    assert trained.metadata.preprocessing.mean == expected.mean
    assert trained.metadata.preprocessing.size == (16, 16)
