"""A training that is interrupted, or killed, and gone on with ends as one that was not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from commands.trainings import prepare_folder, start_training, train_arguments
from masktool.cli import run

LONG = ["--epochs", "12", "--batch", "4"]
"""Long enough for a signal that is sent after the first epoch to arrive before the last."""
STEPS = 12 * 8
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The log of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    prepare_folder(folder)
    process = start_training(folder, *LONG, "--log", "log.jsonl")
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    return (folder / "log.jsonl").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a model and pictures."""
    prepare_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stop_training(folder: Path, number: signal.Signals, *more: str) -> tuple[int, str]:
    """Starts a training and sends it a signal once its first epoch is kept; returns its exit code and its stderr."""
    process = start_training(folder, *LONG, "--log", "log.jsonl", *more)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (folder / "log.jsonl").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert out == ""
    assert not (folder / "masker.onnx").exists()
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_resume_ends_the_training(
    folder: Path, whole_log: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]
):
    code, err = stop_training(folder, number)
    assert code == 130
    *_, stopped, last = filter(None, err.splitlines())  # click ends the line on which a terminal shows ^C
    assert last == "masktool: interrupted"
    done = len((folder / "log.jsonl").read_text().splitlines())
    assert 8 <= done < STEPS
    assert stopped == f"stopped after step {done} of {STEPS}, kept in masker.onnx.checkpoint; --resume goes on"
    assert "Traceback" not in err

    assert run(train_arguments(*LONG, "--log", "log.jsonl", "--resume")) == 0
    assert f"going on from masker.onnx.checkpoint: {done} of {STEPS} steps are done" in capsys.readouterr().err
    assert (folder / "log.jsonl").read_text() == whole_log


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_epoch(folder: Path, whole_log: str):
    code, _ = stop_training(folder, signal.SIGKILL, "--workers", "1")
    assert code == -signal.SIGKILL
    assert run(train_arguments(*LONG, "--log", "log.jsonl", "--resume")) == 0
    assert (folder / "log.jsonl").read_text() == whole_log


@pytest.mark.slow
def test_what_a_checkpoint_refuses(folder: Path, capsys: pytest.CaptureFixture[str]):
    stop_training(folder, signal.SIGINT, "--checkpoint", "kept")
    kept = (folder / "kept").read_bytes()

    assert run(train_arguments(*LONG, "--checkpoint", "kept")) == 2
    assert "an unfinished training is kept there (kept): " in capsys.readouterr().err
    assert run(train_arguments(*LONG, "--checkpoint", "kept", "--resume", "--seed", "1")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the checkpoint is another training's (kept): expected seed 0, got seed 1" in error
    assert (folder / "kept").read_bytes() == kept
    assert not (folder / "masker.onnx").exists()


@pytest.mark.slow
def test_resume_without_a_checkpoint_trains_from_the_start_and_with_a_finished_one_writes_the_file_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(train_arguments("--epochs", "1", "--log", "log.jsonl", "--resume")) == 0
    assert "nothing to resume at masker.onnx.checkpoint: training from the start" in capsys.readouterr().err
    log = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text(log.splitlines()[0])  # as by a kill between the checkpoint and the log
    assert run(train_arguments("--epochs", "1", "--log", "log.jsonl", "--resume", "--masking", "layer")) == 0
    err = capsys.readouterr().err
    assert "4 of 4 steps are done" in err
    assert "epoch" not in err
    assert (folder / "log.jsonl").read_text() == log


def test_a_damaged_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "masker.onnx.checkpoint").write_bytes(b"half of one")
    assert run(train_arguments("--resume")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot read the checkpoint (masker.onnx.checkpoint)" in error
