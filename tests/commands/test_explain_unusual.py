"""``masktool export`` and ``explain`` on what is no classifier of photographs of a fixed size, as typed in a shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from explainers.models import noise_photograph
from networks.unusual_graphs import (
    detector,
    many_channels,
    open_network,
    random_images,
    several_inputs,
    two_images,
)
from PIL import Image

from masktool.cli import run

SLOW_METHODS = ["--method", "lime", "--method", "rise", "--samples", "20"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a photograph and networks that are not exported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.fromarray(noise_photograph((20, 30))).save("photo.png")
    for name, model in {
        "detector": detector(),
        "open": open_network(),
        "several": several_inputs(),
        "two": two_images(),
        "bands": many_channels(),
    }.items():
        onnx.save(model, f"{name}.onnx")
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    """Runs a command line and returns (exit code, stdout lines, stderr)."""

    def run_line(*arguments: str) -> tuple[int, list[str], str]:
        code = run([*arguments, *(["--provider", "cpu"] if arguments[0] == "explain" else [])])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run_line


def test_a_detector(call):
    code, _, err = call("export", "detector.onnx", "--preprocess", "tf")
    assert code == 0
    assert "outputs: 'boxes' float (1, 24, 4), 'scores' float (1, 24, 2); `masktool explain` asks for --output" in err
    assert "missing: labels" not in err
    chosen = ["explain", "photo.png", "-m", "detector.masked.onnx"]
    code, out, err = call(*chosen)
    assert (code, out) == (2, [])
    assert "got boxes (N, 24, 4), scores (N, 24, 2); for example --output boxes --target 0,0" in err
    code, out, err = call(*chosen, *SLOW_METHODS, "--output", "boxes", "--target", "5,0", "--target", "top")
    assert code == 0
    assert "LIME of boxes[5, 0], value " in err
    assert out[0] == "photo.lime.boxes-5-0.png"
    assert len(out) == 4
    code, out, _ = call(*chosen, "--method", "occlusion", "--output", "boxes", "--target", "5,0", "--json")
    document = json.loads(out[0])
    assert (document["target"]["output"], document["target"]["index"]) == ("boxes", [5, 0])


def test_bands(call):
    assert call("export", "bands.onnx", "-o", "masked.onnx")[0] == 0
    np.save("field.npy", random_images(1, 10, 12, 13)[0])
    np.save("small.npy", random_images(1, 10, 11, 13)[0])
    code, out, _ = call("explain", "field.npy", "-m", "masked.onnx", "--method", "occlusion")
    assert (code, out) == (0, ["field.occlusion.png"])
    code, _, err = call("explain", "small.npy", "-m", "masked.onnx")
    assert code == 2
    assert "expected (13, 10, 12) or (10, 12, 13), got (10, 11, 13)" in err
    code, _, err = call("explain", "photo.png", "-m", "masked.onnx")
    assert code == 2
    assert "takes no photographs" in err


def test_a_folder_of_arrays(call, folder: Path):
    assert call("export", "bands.onnx", "-o", "masked.onnx")[0] == 0
    (folder / "fields").mkdir()
    for index in range(2):
        np.save(folder / "fields" / f"{index}.npy", random_images(1, 13, 10, 12, seed=index)[0])
    code, out, _ = call("explain", "fields", "-m", "masked.onnx", "--method", "occlusion", "-o", "maps")
    assert (code, out) == (0, ["maps/0.occlusion.png", "maps/1.occlusion.png"])


def test_an_open_size(call):
    code, _, err = call("export", "open.onnx", "-o", "masked.onnx", "--preprocess", "tf")
    assert code == 0
    assert "height or width is open, so that the mask is required; --input-size H W fixes them" in err
    chosen = ["explain", "photo.png", "-m", "masked.onnx", "--method", "occlusion", "--json"]
    for options, size in (([], (224, 224)), (["--input-size", "24", "40"], (24, 40))):
        code, out, _ = call(*chosen, *options)
        assert code == 0
        assert np.shape(json.loads(out[0])["model_attributions"]) == size
    code, _, err = call("export", "open.onnx", "-o", "masked.onnx", "--mask", "optional")
    assert code == 2
    assert "--input-size H W, or --mask required" in err
    code, _, err = call("export", "open.onnx", "-o", "fixed.onnx", "--input-size", "24", "40")
    assert code == 0
    assert "mask is required" not in err


def test_an_open_size_that_is_not_exported_yet(call):
    chosen = ["explain", "photo.png", "-m", "open.onnx", "--preprocess", "tf", "--method", "occlusion", "--json"]
    code, out, _ = call(*chosen, "--input-size", "24", "40")
    assert code == 0
    assert np.shape(json.loads(out[0])["model_attributions"]) == (24, 40)


def test_several_inputs(call):
    code, _, err = call("export", "several.onnx", "-o", "masked.onnx", "--preprocess", "tf")
    assert code == 0
    assert "the image is 'image'; to be fed besides: 'facts' float (N, 2), 'temperature' float (1)" in err
    chosen = ["explain", "photo.png", "-m", "masked.onnx", "--method", "occlusion", "--json"]
    code, _, err = call(*chosen)
    assert code == 2
    assert "needs more than the image ('facts' float32 (N, 2), 'temperature' float32 (1), 'shift' int64 (1))" in err
    np.save("facts.npy", np.array([[0.5, 1.0]]))
    given = ["--input", "facts=facts.npy", "--input", "temperature=1.5", "--input", "shift=[2]"]
    code, out, _ = call(*chosen, *given)
    assert code == 0
    assert json.loads(out[0])["settings"]["inputs"] == {"facts": [[0.5, 1]], "temperature": 1.5, "shift": [2]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("facts", "bad input (--input facts): expected NAME=NUMBER"),
        ("facts=warm", "bad input (--input facts=warm)"),
        ('facts=["a"]', "bad input (--input facts="),
        ("facts=[[1],[1,2]]", "bad input (--input facts="),
        ("facts=none.npy", "file not found (none.npy)"),
    ],
)
def test_inputs_that_cannot_be_read(call, given: str, message: str):
    code, out, err = call("explain", "photo.png", "--input", given)
    assert (code, out) == (2, [])
    assert message in err


def test_the_image_among_several(call):
    code, _, err = call("export", "two.onnx", "-o", "masked.onnx")
    assert code == 2
    assert "2 inputs may be the image" in err
    assert "--image-input first or second" in err
    assert call("export", "two.onnx", "-o", "masked.onnx", "--image-input", "first", "--preprocess", "tf")[0] == 0
    assert call("export", "--check", "masked.onnx", "two.onnx", "--image-input", "first")[0] == 0
    chosen = ["explain", "photo.png", "-m", "two.onnx", "--preprocess", "tf", "--method", "occlusion", "--json"]
    code, out, _ = call(*chosen, "--image-input", "first", "--input", "second=1")
    assert code == 0
    assert len(json.loads(out[0])["scores"]) == 4
