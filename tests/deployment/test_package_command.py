"""``masktool package``: options, what is printed, and models that are exported first."""

import shutil

import pytest

from masktool.cli import run

from .exports import save
from .pbtxt import read_pbtxt


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save(tmp_path / "network.onnx")
    return tmp_path


def test_a_plain_model_is_exported_first(work, capsys):
    assert run(["package", "network.onnx", "--triton", "repository", "--preprocess", "imagenet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "repository/network\n"
    assert "network.onnx is not masked; exporting it to" in printed.err
    assert "requests share runs, without that, by --max-batch N, and with masks in them if exported with" in printed.err
    (exported,) = (work / "cache").rglob("*.onnx")
    assert (work / "repository/network/1/model.onnx").read_bytes() == exported.read_bytes()


def test_options_reach_the_configuration(work, packaged, capsys):
    shutil.copy(packaged.export("required"), work / "file.masked.onnx")
    options = "--name given --model-version 4 --max-batch 6 --queue-delay 70 --instances 2 --device cpu"
    assert run(["package", "file.masked.onnx", "--triton", "r", *options.split()]) == 0
    assert (work / "r/given/4/model.onnx").is_file()
    config = read_pbtxt((work / "r/given/config.pbtxt").read_text())
    assert config.one("max_batch_size") == 6
    assert config.one("dynamic_batching") == [
        ("preferred_batch_size", [3, 6]),
        ("max_queue_delay_microseconds", 70),
    ]
    assert config.one("instance_group") == [("count", 2), ("kind", "KIND_CPU")]
    assert run(["package", "file.masked.onnx", "--triton", "r", "--name", "given", "--overwrite", "--tensorrt"]) == 0
    assert not (work / "r/given/4").exists()
    assert "tensorrt" in (work / "r/given/config.pbtxt").read_text()


def test_a_batch_of_one_waits_for_nobody(work, packaged):
    shutil.copy(packaged.export("required"), work / "file.onnx")
    assert run(["package", "file.onnx", "--triton", "r", "--max-batch", "1"]) == 0
    config = read_pbtxt((work / "r/file/config.pbtxt").read_text())
    assert config.one("max_batch_size") == 1
    assert config.one("dynamic_batching") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["network.onnx"], "nothing to write"),
        (["network.onnx", "--triton", "r", "--name", "a/b"], "not a name for a served model"),
        (["network.onnx", "--triton", "r", "--model-version", "0"], "--model-version"),
        (["missing.onnx", "--triton", "r"], "missing.onnx"),
        (["network.onnx", "--triton", "network.onnx"], "choose another one with --triton"),
    ],
)
def test_what_is_wrong_is_one_line(work, capsys, arguments, message):
    assert run(["package", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (work / "r").exists()
