"""`masktool serve` before it serves: names, and what it says where it cannot."""

import importlib.util
import socket
import subprocess
import sys

import pytest

from masktool.commands.serve import name_models
from masktool.errors import MasktoolError


def test_models_are_named_after_their_files_or_as_told(tmp_path):
    (tmp_path / "a b.onnx").write_bytes(b"")
    (tmp_path / "x=y.onnx").write_bytes(b"")
    texts = [
        str(tmp_path / "a b.onnx"),
        str(tmp_path / "x=y.onnx"),
        "cat=net.onnx",
        "torchvision:resnet18",
        "net.v2.onnx",
    ]
    assert name_models(texts) == {
        "a-b": texts[0], "x-y": texts[1], "cat": "net.onnx", "resnet18": "torchvision:resnet18", "net.v2": "net.v2.onnx"
    }  # fmt: skip


def test_without_a_model_the_built_in_one_is_served(monkeypatch):
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    assert name_models(()) == {"demo": None}
    monkeypatch.setenv("MASKTOOL_MODEL", "nets/own.onnx")
    assert name_models(()) == {"own": None}


def test_two_models_of_one_name_are_refused():
    with pytest.raises(MasktoolError, match="two models of one name"):
        name_models(["a/net.onnx", "b/net.onnx"])


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "masktool", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_the_extra_it_says_what_to_install():
    if importlib.util.find_spec("uvicorn") is not None:
        pytest.skip("the extra is installed")
    done = run()
    assert done.returncode == 2
    assert done.stderr.strip().endswith("run pip install 'masktool[serve]'")
    assert done.stderr.count("\n") == 1


@pytest.mark.serving
def test_a_port_that_is_taken_is_told_before_models_are_opened(needs_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("missing.onnx", "--port", port)
    assert done.returncode == 2
    assert f"the port is taken (127.0.0.1:{port})" in done.stderr


@pytest.mark.serving
def test_a_host_and_a_model_that_are_none_are_told(needs_server):
    assert "cannot listen there (203.0.113.7:0)" in run("--host", "203.0.113.7", "--port", "0").stderr
    done = run("missing.onnx", "--port", "0")
    assert (done.returncode, "missing.onnx" in done.stderr) == (2, True)
