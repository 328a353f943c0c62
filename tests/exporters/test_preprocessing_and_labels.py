"""``masktool.export`` takes preprocessing and labels in every form that the command takes, and refuses all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.contract import Metadata, Preprocessing
from masktool.exporters.presets import IMAGENET_MEAN, IMAGENET_STD

LABELS = ("cat", "dog", "fox", "hen")


def export(tmp_path: Path, **options: object) -> Metadata:
    return masktool.export(classifier(), tmp_path / "masked.onnx", **options).metadata


def test_a_preset_is_named(tmp_path: Path):
    found = export(tmp_path, preprocessing="imagenet").preprocessing
    assert found is not None
    assert (found.size, found.mean, found.std) == ((8, 8), IMAGENET_MEAN, IMAGENET_STD)
    found = export(tmp_path, preprocessing="caffe").preprocessing
    assert found is not None
    assert (found.channel_order, found.scale) == ("BGR", 1.0)


@pytest.mark.parametrize("form", [str, Path])
def test_a_file_says_how(tmp_path: Path, form: type):
    (tmp_path / "how.json").write_text(json.dumps({"resize": "exact", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}))
    found = export(tmp_path, preprocessing=form(tmp_path / "how.json")).preprocessing
    assert found == Preprocessing(size=(8, 8), resize="exact", mean=(0.1, 0.2, 0.3), std=(1, 1, 1))


def test_mean_and_std_replace_a_presets(tmp_path: Path):
    preset = masktool.Preset("tf", mean=(0.5, 0.5, 0.5), std=(2.0, 2.0, 2.0))
    found = export(tmp_path, preprocessing=preset).preprocessing
    assert found is not None
    assert (found.scale, found.mean, found.std) == (1 / 127.5, (0.5, 0.5, 0.5), (2.0, 2.0, 2.0))


def test_the_function_and_the_command_agree(tmp_path: Path):
    import onnx

    onnx.save(classifier(), tmp_path / "plain.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    given = {"preprocessing": masktool.Preset("imagenet", std=(1.0, 1.0, 1.0)), "labels": tmp_path / "labels.txt"}
    by_function = masktool.export(tmp_path / "plain.onnx", tmp_path / "function.onnx", **given).metadata
    typed = ["--preprocess", "imagenet", "--std", "1,1,1", "--labels", str(tmp_path / "labels.txt")]
    assert run(["export", str(tmp_path / "plain.onnx"), "-o", str(tmp_path / "command.onnx"), *typed]) == 0
    assert masktool.load(tmp_path / "command.onnx").metadata == by_function


@pytest.mark.parametrize("form", [str, Path])
def test_a_file_names_the_classes(tmp_path: Path, form: type):
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    assert export(tmp_path, labels=form(tmp_path / "labels.json")).labels == LABELS
    assert export(tmp_path, labels=LABELS).labels == export(tmp_path, labels=list(LABELS)).labels == LABELS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": 7}, "not a preprocessing .*got int"),
        ({"preprocessing": "imagenett"}, "no such file .*imagenett.*expected imagenet, caffe, tf, yolo or a JSON file"),
        ({"preprocessing": {"mean": 1}}, "not a preprocessing .*got dict"),
        ({"labels": "nowhere.txt"}, "file not found .*nowhere.txt"),
        ({"labels": 7}, "not labels .*got int"),
        ({"labels": [1, 2, 3, 4]}, "not a class name .*class 0.*: 1"),
    ],
)
def test_another_form_is_refused(tmp_path: Path, options: dict[str, object], message: str):
    with pytest.raises(MasktoolError, match=message):
        export(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_file_with_a_size_gives_a_module_its_size(tmp_path: Path):
    torch = pytest.importorskip("torch")
    document = {"size": [12, 10], "resize": "exact", "mean": [0, 0, 0], "std": [1, 1, 1]}
    (tmp_path / "how.json").write_text(json.dumps(document))
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    network = torch.nn.Sequential(network, torch.nn.Flatten(), torch.nn.Linear(4, 5)).eval()
    exported = masktool.export(network, tmp_path / "m.onnx", preprocessing=tmp_path / "how.json")
    assert exported.metadata.preprocessing is not None
    assert exported.metadata.preprocessing.size == (12, 10)
