"""What ``masktool train-masker`` refuses: one line, exit code 2, and no file left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from networks.small_graphs import classifier

pytest.importorskip("torch")

import torch

import masktool
from commands.trainings import MODEL, PIXELS, prepare_folder, save_weights, train_arguments
from masktool import demo
from masktool.cli import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a model and pictures."""
    prepare_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """Runs a command line that must fail; returns its error and the lines before it."""
    before = sorted(path for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *said, error = err.splitlines()
    assert error.startswith("masktool: error: ")
    assert sorted(path for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts) == before
    return error, said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "option out of range (epochs): expected a whole number from 1, got 0"),
        (["--learning-rate", "-1"], "option out of range (learning_rate): expected a number above 0"),
        (["--learning-rate", "nan"], "option out of range (learning_rate)"),
        (["--target-area", "1.5"], "option out of range (target_area)"),
        (["--min-crop", "0"], "option out of range (min_crop)"),
        (["--objective", "neither"], "'neither' is not one of 'in', 'out', 'both'"),
        (["--masking", "partial"], "'partial' is not one of 'fill', 'layer'"),
        (["--workers", "-1"], "-1 is not in the range x>=0"),
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--through", "layer", "--classifier", "ca"], "layer masking judges by an exported file"),
        (["--through", "layer", "--infiller", "blur"], "layer masking fills from neighbours"),
        (["--device", "abacus"], "no such device (abacus)"),
        (["--stages", "trunk"], "4 8 x 16 x 16"),  # lists what there is
        (["--per-class", "5"], "classes with too few images (data): expected 5 of each"),
        (["--labels", "absent.txt"], "file not found (absent.txt)"),
        (["--mean", "1,x,3"], "is not a list of numbers"),
        (["--preprocess", "imagnet"], "no such file (--preprocess imagnet): expected imagenet, caffe, tf"),
        (["-o", "data"], "the output is a directory (data)"),
        (["-o", "weights.pt"], "the output would overwrite the model (weights.pt)"),
        (["--data", "absent"], "no such data (absent)"),
        (["--log", "weights.pt"], "one file for two purposes (weights.pt): MODEL and --log; name another"),
        (["--log", "kept", "--checkpoint", "./kept"], "one file for two purposes (kept): --checkpoint and --log"),
        (["--checkpoint", "masker.onnx"], "one file for two purposes (masker.onnx): -o and --checkpoint"),
        (["-o", "labels.txt/masker.onnx"], "(labels.txt/masker.onnx): Not a directory"),
    ],
)
def test_bad_options(more: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    error, said = refuse(train_arguments(*more), capsys)
    assert message in error
    assert said == []


def test_no_data(capsys: pytest.CaptureFixture[str]):
    error, _ = refuse(["train-masker", *MODEL], capsys)
    assert "Missing option '--data'" in error


def test_unknown_preprocessing(capsys: pytest.CaptureFixture[str]):
    error, _ = refuse(["train-masker", *MODEL, "--data", "data"], capsys)
    assert "preprocessing unknown (weights.pt); add --preprocess imagenet|caffe|tf|yolo|FILE.json" in error


def test_unknown_input_size(capsys: pytest.CaptureFixture[str]):
    error, _ = refuse(["train-masker", *MODEL[:3], *PIXELS, "--data", "data"], capsys)
    assert error == "masktool: error: input size unknown (weights.pt); add --input-size H W"


def test_an_empty_class_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(folder / "data" / "star")
    (folder / "data" / "star").mkdir()
    error, said = refuse(train_arguments(), capsys)
    assert "class folders without images (data): star" in error
    assert said == []


def test_one_class_only(folder: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("circle", "square", "triangle", "cross", "heart", "crescent", "arrow"):
        shutil.rmtree(folder / "data" / name)
    error, said = refuse(train_arguments(), capsys)
    assert "only one class (data): expected images of two or more, got class 3 'star' alone" in error
    assert said == []


def test_a_file_that_is_no_image(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "data" / "star" / "note.png").write_text("not an image")
    error, said = refuse(train_arguments(), capsys)
    assert "files that do not open as images (data): star/note.png" in error
    assert said == []


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_breaks_off(folder: Path, workers: str, capsys: pytest.CaptureFixture[str]):
    path = next((folder / "data" / "star").iterdir())
    path.write_bytes(path.read_bytes()[:-500])
    error, said = refuse(train_arguments("--workers", workers), capsys)
    assert path.name in error
    assert not any("Traceback" in line or "epoch" in line for line in said)


def test_a_model_whose_stages_are_all_one_pixel(folder: Path, capsys: pytest.CaptureFixture[str]):
    save_weights(folder, "build_without_places")
    error, said = refuse(train_arguments("--arch", "net.py:build_without_places"), capsys)
    assert "no stage to read: a masker needs maps of more than one pixel (weights.pt)" in error
    assert said == []


def test_a_loss_that_is_not_a_number(folder: Path, capsys: pytest.CaptureFixture[str]):
    weights = save_weights(folder).state_dict()
    torch.save(weights | {"10.bias": torch.full((8,), torch.nan)}, folder / "weights.pt")
    error, _ = refuse(train_arguments(), capsys)
    assert "the loss is not finite (step 1 of 8): expected numbers, got loss nan" in error


def test_an_onnx_model(folder: Path, capsys: pytest.CaptureFixture[str]):
    onnx.save(classifier(), folder / "small.onnx")
    error, _ = refuse(["train-masker", "small.onnx", "--data", "data"], capsys)
    assert "(small.onnx)" in error
    assert "got an ONNX model; give the torch model that it was exported from" in error


def test_a_frozen_model_cannot_be_trained_alongside(capsys: pytest.CaptureFixture[str]):
    model = [str(demo.program_path()), *PIXELS]
    error, _ = refuse(["train-masker", *model, "--data", "data", "--classifier", "ca"], capsys)
    assert "the classifier cannot be trained alongside (shapes.pt2): an exported program" in error


def test_without_torch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("masktool.exporters.torch_sources.module_export.importlib.util.find_spec", lambda _: None)
    error, _ = refuse(train_arguments(), capsys)
    assert "torch is not installed, which training a masking model needs; pip install 'masktool[torch]'" in error


def test_an_option_whose_file_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]):
    for option in ("--log", "--checkpoint"):
        error, _ = refuse(train_arguments(option, "labels.txt/kept/file"), capsys)
        assert "labels.txt/kept" in error
        assert f"with {option}" in error


def test_a_training_from_python_refuses_one_file_for_two_purposes():
    with pytest.raises(masktool.MasktoolError, match=r"one file for two purposes \(masker.onnx\): path and log"):
        masktool.train_masker("weights.pt", "data", "masker.onnx", arch="arch.py:build", log="masker.onnx")
