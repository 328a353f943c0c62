"""A model from a pipe, a URL or a device: one line, at once."""

import os

import pytest

from masktool.cli import run
from masktool.demo import model_path, sample_path

COMMANDS = (
    ["info", "{}"],
    ["export", "{}", "-o", "out.onnx"],
    ["export", "--check", "{}"],
    ["explain", "PHOTO", "-m", "{}"],
)


def run_on(command, name):
    return run([argument.format(name).replace("PHOTO", str(sample_path())) for argument in command])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_is_no_model_and_says_so(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("p.onnx")
    reading, writing = os.pipe()
    os.write(writing, model_path().read_bytes()[:1000])
    os.close(writing)
    for name in ("p.onnx", f"/dev/fd/{reading}"):
        assert run_on(command, name) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "a pipe" in line
        assert "to a file first" in line or "as a file first" in line
    os.close(reading)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_is_no_model_and_says_so(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert run_on(command, "https://example.org/model.onnx") == 2
    assert "a URL (https://example.org/model.onnx)" in capsys.readouterr().err.splitlines()[-1]
