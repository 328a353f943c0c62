"""Files that run code of their maker's, through every door that takes a model: nothing runs without consent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from masktool import export, train_masker
from masktool.cli import run
from masktool.errors import MasktoolError
from tests.trust.hostile import LATENT, OTHERS, READABLE, ROUTES, SIDE, Net, benign_members, write_members

SIZE = ("--input-size", str(SIDE), str(SIDE))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Builds a route's file once, and gives it with its marker, which does not exist."""
    folder = tmp_path_factory.mktemp("hostile")
    built: dict[str, tuple[Path, Path]] = {}

    def get(route: str) -> tuple[Path, Path]:
        if route not in built:
            built[route] = (folder / f"file{len(built)}.pt2", folder / f"marker{len(built)}")
            ROUTES[route](*built[route])
        path, marker = built[route]
        marker.unlink(missing_ok=True)
        return path, marker

    return get


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of one picture each; cache and current directory lie in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("0", "1"):
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = np.random.default_rng(int(name)).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "a.png")
    return tmp_path / "data"


def command_lines(path: Path, data: Path) -> dict[str, Sequence[str]]:
    """Every command that takes a model, by its name."""
    picture = str(data / "0" / "a.png")
    shared = (*SIZE, "--preprocess", "tf")
    return {
        "export": ("export", str(path), "-o", "out.onnx", *SIZE),
        "explain": ("explain", picture, "-m", str(path), "--method", "occlusion", *shared),
        "explain $MASKTOOL_MODEL": ("explain", picture, "--method", "occlusion", *shared),
        "evaluate": ("evaluate", "missingness", str(path), str(data), *shared),
        "train-masker": ("train-masker", str(path), "--data", str(data), "--epochs", "1", *shared),
    }


@pytest.mark.parametrize("route", ROUTES)
def test_no_command_runs_code_without_consent(route, files, photographs, monkeypatch, capsys):
    path, marker = files(route)
    monkeypatch.setenv("MASKTOOL_MODEL", str(path))
    for name, words in command_lines(path, photographs).items():
        code = run(words)
        said = capsys.readouterr().err
        assert not marker.exists(), name
        assert "Traceback" not in said
        assert "unexpected" not in said
        if route not in READABLE and not (name == "train-masker" and route.startswith("TorchScript")):
            assert code == 2, name
            (line,) = [line for line in said.splitlines() if "error:" in line]
            assert "reading the file may run code from it" in line, name
            assert "--trust-code" in line, name


@pytest.mark.parametrize("route", ROUTES)
def test_a_command_that_reads_onnx_alone_refuses_the_others(route, files, photographs, capsys):
    path, marker = files(route)
    assert run(["gradient", str(path), "--of", "x", "--output", "y", "-o", str(photographs / "out.onnx")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not marker.exists()


@pytest.mark.parametrize("route", ROUTES)
def test_python_runs_no_code_without_consent(route, files, photographs):
    path, marker = files(route)
    for call in (
        lambda: export(path, "out.onnx", input_size=(SIDE, SIDE)),
        lambda: train_masker(path, photographs, "out.onnx", input_size=(SIDE, SIDE)),
    ):
        if route not in READABLE:
            with pytest.raises(MasktoolError):
                call()
    assert not marker.exists()


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in LATENT])
def test_with_consent_the_command_runs(route, files, tmp_path, monkeypatch):
    """Without this, the tests above could not fail."""
    path, marker = files(route)
    monkeypatch.syspath_prepend(str(path.parent))
    with contextlib.suppress(MasktoolError):  # a file of commands alone is no network
        export(path, tmp_path / "out.onnx", input_size=(SIDE, SIDE), trust_code=True)
    assert marker.exists()


def test_the_old_word_is_none_in_python(files, tmp_path):
    path, marker = files("pickled module")
    with pytest.raises(TypeError, match="trust_pickle"):
        export(path, tmp_path / "out.onnx", input_size=(SIDE, SIDE), trust_pickle=True)
    assert not marker.exists()


def test_check_asks_for_consent_for_its_source(files, photographs, capsys):
    torch.onnx.export(Net().eval(), (torch.rand(2, 3, SIDE, SIDE),), "net.onnx", dynamo=True, verbose=False)
    assert run(("export", "net.onnx", "-o", "masked.onnx")) == 0
    for route in OTHERS:
        path, marker = files(route)
        assert run(("export", str(path), "--check", "masked.onnx", *SIZE)) == 2
        assert "may run code" in capsys.readouterr().err
        assert not marker.exists()


@pytest.mark.parametrize("word", ["--trust-code", "--trust-pickle"])
def test_files_of_the_same_kinds_that_run_nothing_are_read_with_consent(word, photographs):
    torch.jit.trace(Net().eval(), torch.rand(1, 3, SIDE, SIDE)).save("script.pt")
    torch.save(Net().eval(), "module.pt")
    torch.save(Net().eval(), "old.pt", _use_new_zipfile_serialization=False)
    write_members(Path("net.pt2"), benign_members())
    for name in ("script.pt", "module.pt", "old.pt", "net.pt2"):
        assert run(("export", name, "-o", f"{name}.onnx", word, *SIZE)) == 0


def test_explain_and_evaluate_take_consent(photographs, capsys):
    torch.save(Net().eval(), "module.pt")
    picture = str(photographs / "0" / "a.png")
    assert run(("explain", picture, "-m", "module.pt", "--method", "occlusion", *SIZE, "--preprocess", "tf")) == 2
    given = (*SIZE, "--preprocess", "tf", "--trust-code")
    assert run(("explain", picture, "-m", "module.pt", "--method", "occlusion", *given)) == 0
    assert run(("evaluate", "missingness", "module.pt", str(photographs), *given, "--limit", "1")) == 0
