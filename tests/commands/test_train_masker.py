"""``masktool train-masker``: one file that classifies and explains; what is said on which stream."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import masktool
from commands.trainings import PICTURES, prepare_folder, read_log, train_arguments
from masktool import demo, load
from masktool.cli import run
from masktool.commands.train_masker import command
from masktool.commands.training_options import HELP
from masktool.contract import SALIENCY_MAP, Metadata, Preprocessing
from masktool.demo import shapes
from masktool.maskers.settings import TrainingSettings

TERMS = {"loss", "tv", "area", "objective_in", "area_in", "accuracy_in", "objective_out", "area_out", "accuracy_out"}
DEMO = [str(demo.program_path()), "--mean", ".5,.5,.5", "--std", ".13,.13,.13", "--labels", "labels.txt"]


class Trained(NamedTuple):
    """A folder in which the command has run once with ``--log``, and what it said."""

    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    prepare_folder(folder)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        assert run(train_arguments("--log", "log.jsonl")) == 0
    return Trained(folder, out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a model and pictures."""
    prepare_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_metadata(path: Path) -> Metadata:
    metadata = Metadata.from_properties({entry.key: entry.value for entry in onnx.load(path).metadata_props})
    assert metadata is not None
    return metadata


def test_the_path_goes_to_stdout_and_the_rest_to_stderr(trained: Trained):
    assert trained.out == "masker.onnx\n"
    lines = trained.err.splitlines()
    assert lines[0] == "classifier: weights.pt"
    assert "stages: 4 8 x 16 x 16, 7 8 x 8 x 8" in lines
    assert f"pictures: {PICTURES} of 8 classes; 8 steps of 8" in lines
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all(f" {term.replace('_', ' ')} " in line for line in epochs for term in TERMS)
    assert lines[-3].startswith("parity: ones 0, ")
    assert lines[-2].startswith("wrote masker.onnx (")
    assert lines[-1] == "next: masktool explain IMAGE -m masker.onnx --method masker"


def test_the_log_holds_every_term_of_every_step(trained: Trained):
    log = read_log(trained.folder / "log.jsonl")
    assert [record["step"] for record in log] == list(range(1, 9))
    assert all(TERMS | {"accuracy"} <= set(record) for record in log)
    figures = read_metadata(trained.folder / "masker.onnx").masker["figures"]
    assert figures["loss"] == pytest.approx(np.mean([record["loss"] for record in log[4:]]))


def test_the_file_classifies_as_the_model_does_and_draws_maps(trained: Trained, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(trained.folder)
    plain = ["export", *train_arguments()[1:7], "-o", "plain.onnx", "--output-kind", "logits"]
    assert run(plain) == 0
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with load("masker.onnx") as masker, load("plain.onnx") as plain:
        np.testing.assert_allclose(masker.scores(images), plain.scores(images), atol=1e-6)
    maps = find_maps(Path("masker.onnx"), images)
    assert maps.shape == (3, 1, 32, 32)
    assert 0 <= maps.min() < maps.max() <= 1


def find_maps(path: Path, images: np.ndarray) -> np.ndarray:
    """Runs a file in ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([SALIENCY_MAP], {session.get_inputs()[0].name: images})[0]


def test_the_file_explains(trained: Trained, capsys: pytest.CaptureFixture[str]):
    picture, model = next((trained.folder / "data" / "star").iterdir()), trained.folder / "masker.onnx"
    assert run(["explain", str(picture), "-m", str(model), "--method", "masker", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["method"] == "masker"
    assert document["forward_passes"] == 1
    assert document["target"]["label"] in shapes.LABELS


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(train_arguments("--json", "--epochs", "1")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "masker.onnx"
    assert document["bytes"] == (folder / "masker.onnx").stat().st_size
    assert set(document["figures"]) >= TERMS
    masker = document["metadata"]["masker"]
    assert (masker["settings"]["epochs"], masker["pictures"], masker["steps"]) == (1, PICTURES, 4)
    assert document["metadata"]["labels"] == list(shapes.LABELS)


@pytest.mark.slow
def test_a_torch_export_archive_knows_its_input_size_and_stays_frozen(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["train-masker", *DEMO, "--data", "data", "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "shapes.masker.onnx\n"
    assert "stages: blocks.1 32 x 32 x 32, blocks 64 x 16 x 16" in err
    assert "its weights stay as they are" in err
    metadata = read_metadata(folder / "shapes.masker.onnx")
    assert metadata.preprocessing is not None
    assert metadata.preprocessing.size == (64, 64)


@pytest.mark.slow
def test_ca_writes_another_classifier_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(train_arguments("--classifier", "ca", "--history-interval", "2", "--log", "log.jsonl")) == 0
    err = capsys.readouterr().err
    assert "note: the file's classifier is the one that was trained alongside; its scores are not MODEL's" in err
    assert all("classifier_loss" in record for record in read_log(folder / "log.jsonl"))
    plain = ["export", *train_arguments()[1:7], "-o", "plain.onnx", "--output-kind", "logits"]
    assert run(plain) == 0
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with load("masker.onnx") as masker, load("plain.onnx") as plain:
        assert np.abs(masker.scores(images) - plain.scores(images)).max() > 1e-6


@pytest.mark.slow
def test_layer_masking_in_training_and_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(train_arguments("--through", "layer", "--masking", "layer", "--epochs", "1")) == 0
    assert "next: masktool explain" in capsys.readouterr().err
    metadata = read_metadata(folder / "masker.onnx")
    assert metadata.masking == "layer"
    assert metadata.masker is not None
    assert metadata.masker["settings"]["through"] == "layer"


@pytest.mark.slow
def test_a_csv_names_stages_and_workers(folder: Path, capsys: pytest.CaptureFixture[str]):
    pictures = [path.relative_to(folder) for path in sorted(folder.glob("data/*/*.png"))]
    (folder / "pictures.csv").write_text("file,label\n" + "".join(f"{each},{each.parent.name}\n" for each in pictures))
    arguments = ["--per-class", "2", "--stages", "1, 7", "--workers", "1", "--no-flip", "--min-crop", "1"]
    assert run(train_arguments(*arguments, data="pictures.csv")) == 0
    err = capsys.readouterr().err
    assert "stages: 1 8 x 32 x 32, 7 8 x 8 x 8" in err
    assert "pictures: 16 of 8 classes; 4 steps of 8" in err
    settings = read_metadata(folder / "masker.onnx").masker["settings"]
    assert (settings["stages"], settings["flip"], settings["min_crop"]) == (["1", "7"], False, 1)


def test_the_python_interface(trained: Trained):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8))
    before = [weight.clone() for weight in network.parameters()]
    metadata = masktool.train_masker(
        network,
        trained.folder / "data",
        trained.folder / "module.onnx",
        preprocessing=Preprocessing(size=(32, 32), resize="exact"),
        labels=shapes.LABELS,
        settings=TrainingSettings(classifier="ca", epochs=1, batch=16),
    ).metadata
    assert metadata == read_metadata(trained.folder / "module.onnx")
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_help_and_misuse_need_no_torch():
    code = "import sys; from masktool.cli import run; print(run(sys.argv[1:]), *sys.modules, file=sys.stderr)"
    bad_setting = ["weights.pt", "--data", "data", "--epochs", "0"]
    for arguments, exit_code, absent in (
        (["--help"], "0", {"torch", "onnx", "onnxruntime"}),
        (bad_setting, "2", {"torch"}),
    ):
        command_line = [sys.executable, "-c", code, "train-masker", *arguments]
        told = subprocess.run(command_line, capture_output=True, text=True, check=True).stderr.splitlines()[-1].split()
        assert told[0] == exit_code
        assert not absent & set(told)


def test_every_setting_is_an_option_with_the_settings_default():
    options = {option.name: option for option in command.params}
    fields = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    assert set(HELP) == set(fields)
    assert {name: options[name].default for name in fields} == fields
