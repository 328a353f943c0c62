"""The whole path: pictures in a folder, one file out that classifies as before and explains."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import masktool
from maskers.small import small_network
from masktool.contract import Metadata, Preprocessing
from masktool.errors import MasktoolError
from masktool.exporters.settings import Preset
from masktool.maskers.checkpoint import load_checkpoint
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.train import train_masker
from masktool.maskers.training import Training

PREPROCESSING = Preprocessing(size=(16, 16), resize="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
PARITY = 1e-5
FEW_STEPS = TrainingSettings(epochs=2, batch=4, stages="all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures of four classes, which the network may take for what it likes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(12):
        place = root / str(index % 4)
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(place / f"{index}.png")
    return root


def train(folder, path, model=None, **options):
    given = {"preprocessing": PREPROCESSING, "settings": FEW_STEPS} | options
    return train_masker(small_network() if model is None else model, folder, path, **given).metadata


class Trained(NamedTuple):
    """What a training wrote, and what it said."""

    path: Path
    metadata: Metadata
    said: list[str]


def images_of(n=3):
    return np.random.default_rng(1).standard_normal((n, 3, 16, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A training that was told to go on with one that there was not, and kept a log."""
    path, said = tmp_path_factory.mktemp("trained") / "masker.onnx", []
    metadata = train(folder, path, resume=True, say=said.append, log=path.with_name("log.jsonl"))
    return Trained(path, metadata, said)


def test_the_file_gives_what_the_classifier_gives_and_a_map(trained):
    metadata = trained.metadata
    assert metadata.parity["framework"] <= PARITY  # of the map as well
    with masktool.load(trained.path, "cpu") as session:
        found = session.run(images_of())
        assert session.metadata.masker == metadata.masker
    assert list(found) == ["logits", "saliency_map"]
    expected = small_network()(torch.from_numpy(images_of())).detach().numpy()
    np.testing.assert_allclose(found["logits"], expected, atol=PARITY)
    assert found["saliency_map"].shape == (3, 1, 16, 16)
    assert found["saliency_map"].dtype == np.float32
    assert 0 < found["saliency_map"].min() < found["saliency_map"].max() < 1
    assert [each["name"] for each in metadata.masker["stages"]] == ["fine", "middle", "coarse"]
    assert (metadata.masker["pictures"], metadata.masker["steps"]) == (12, 6)
    assert set(metadata.masker["figures"]) >= {"loss", "area", "accuracy_in", "accuracy_out"}


def test_the_users_module_is_not_changed(folder, tmp_path):
    network = small_network().train()
    before = copy.deepcopy(network.state_dict())
    settings = TrainingSettings(epochs=1, batch=6, classifier="ca", classifier_learning_rate=0.1)
    train(folder, tmp_path / "masker.onnx", network, settings=settings)
    assert network.training
    assert all(each.requires_grad for each in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with masktool.load(tmp_path / "masker.onnx", "cpu") as session:  # it holds the one that was trained alongside
        assert (
            np.abs(session(images_of()) - network.eval()(torch.from_numpy(images_of())).detach().numpy()).max() > 0.01
        )


def test_an_interrupted_training_ends_as_the_uninterrupted_one(folder, tmp_path, monkeypatch):
    """Whatever stops it and wherever: here an exception at the fifth step, past the last checkpoint."""
    settings = TrainingSettings(epochs=3, batch=4, stages="all", classifier="ca", history_interval=2)
    train(folder, tmp_path / "whole.onnx", settings=settings, log=tmp_path / "whole.jsonl")
    step = Training.step

    def fail_at_the_fifth(self, images, labels):
        if self.done == 4:
            raise MasktoolError("the power went")
        return step(self, images, labels)

    monkeypatch.setattr(Training, "step", fail_at_the_fifth)
    options = {"settings": settings, "log": tmp_path / "parts.jsonl"}
    with pytest.raises(MasktoolError, match="the power went"):
        train(folder, tmp_path / "parts.onnx", **options)
    assert load_checkpoint(tmp_path / "parts.onnx.checkpoint").state["done"] == 3
    monkeypatch.undo()
    with pytest.raises(MasktoolError, match=r"an unfinished training is kept there.*3 of 9 steps.*resume=True"):
        train(folder, tmp_path / "parts.onnx", **options)
    train(folder, tmp_path / "parts.onnx", **options, resume=True)
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    with masktool.load(tmp_path / "parts.onnx", "cpu") as parts, masktool.load(tmp_path / "whole.onnx", "cpu") as whole:
        first, second = parts.run(images_of()), whole.run(images_of())
    assert all(np.array_equal(first[name], second[name]) for name in second)


@pytest.mark.slow
def test_a_finished_training_is_written_again_with_another_masking(folder, tmp_path, monkeypatch):
    path = tmp_path / "masker.onnx"
    train(folder, path)
    with masktool.load(path, "cpu") as session:
        before = session.run(images_of())
    monkeypatch.setattr(Training, "step", None)  # nothing is trained
    metadata = train(folder, path, resume=True, masking="layer")
    assert metadata.masking == "layer"
    mask = np.ones((1, 1, 16, 16), np.float32)
    mask[..., :8] = 0
    with masktool.load(path, "cpu") as session:
        after, masked = session.run(images_of()), session.run(images_of(), mask)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=PARITY)
        assert np.abs(masked[name] - values).max() > 100 * PARITY


@pytest.mark.slow
def test_layer_masking_trains_too(folder, tmp_path):
    settings = TrainingSettings(epochs=1, batch=6, through="layer")
    metadata = train(folder, tmp_path / "masker.onnx", settings=settings, log=tmp_path / "log.jsonl")
    assert metadata.masker["settings"]["through"] == "layer"
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_resuming_nothing_starts(trained):
    assert any("nothing to resume" in line for line in trained.said)
    assert sum(line.startswith("epoch ") for line in trained.said) == 2


def test_the_log_has_a_document_for_each_step(trained):
    records = [json.loads(line) for line in (trained.path.parent / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(list(record.values())).all() for record in records)


def test_another_trainings_checkpoint_is_refused(folder, tmp_path):
    train(folder, tmp_path / "masker.onnx")
    changed = TrainingSettings(epochs=2, batch=4, stages="all", seed=4)
    with pytest.raises(MasktoolError, match=r"another training's.*expected seed 0, got seed 4"):
        train(folder, tmp_path / "masker.onnx", settings=changed, resume=True)
    with pytest.raises(MasktoolError, match=r"another training's.*weights"):
        train(folder, tmp_path / "masker.onnx", small_network(seed=1), resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": None}, "preprocessing unknown"),
        ({"labels": ("a", "b")}, "the labels do not fit the model"),
        ({"settings": TrainingSettings(stages=("nowhere",))}, "no map comes out of such a module"),
        ({"settings": TrainingSettings(device="nowhere")}, "no such device"),
        ({"labels": ("a", "b", "c", "d")}, None),
    ],
)
def test_what_cannot_be_used_is_told_before_the_first_step(folder, tmp_path, options, message):
    if message is None:  # folders called 0 to 3 are indices, whatever the classes are called
        assert train(folder, tmp_path / "masker.onnx", **options).labels == ("a", "b", "c", "d")
        return
    with pytest.raises(MasktoolError, match=message):
        train(folder, tmp_path / "masker.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "sideways"},
        {"epochs": 0},
        {"batch": 2.5},
        {"per_class": 0},
        {"learning_rate": 0},
        {"lambda_out": float("nan")},
        {"min_crop": 1.5},
        {"target_area": 1},
        {"stages": "some"},
        {"seed": -1},
        {"through": "layer", "classifier": "ca"},
        {"through": "layer", "infiller": "blur"},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(MasktoolError) as raised:
        TrainingSettings(**settings)
    assert next(iter(settings)) in str(raised.value)


@pytest.mark.slow
def test_preprocessing_and_labels_come_in_every_form(folder, tmp_path):
    document = dataclasses.asdict(PREPROCESSING) | {"layout": "NCHW"}
    (tmp_path / "how.json").write_text(json.dumps(document))
    (tmp_path / "labels.txt").write_text("\n".join("0123"))
    given = {"preprocessing": str(tmp_path / "how.json"), "labels": tmp_path / "labels.txt"}
    found = train(folder, tmp_path / "masker.onnx", **given)
    assert (found.preprocessing, found.labels) == (PREPROCESSING, tuple("0123"))
    preset = Preset("imagenet", mean=(0.1, 0.2, 0.3))
    found = train(folder, tmp_path / "other.onnx", preprocessing=preset, input_size=PREPROCESSING.size)
    assert (found.preprocessing.size, found.preprocessing.mean) == (PREPROCESSING.size, (0.1, 0.2, 0.3))
