"""``masktool explain`` with methods that ask for gradients: the export that they need, and what is said."""

import json

import numpy as np
import onnx
import pytest
from networks.small_graphs import classifier
from PIL import Image

import masktool
from masktool.cli import run
from masktool.commands.explain_options import feature_map_needs, first_with_gradients
from masktool.contract import Preprocessing
from masktool.interface.kept_exports import request_export
from masktool.interface.options import ModelChoice


@pytest.fixture
def explain(tmp_path, monkeypatch, capsys):
    """Runs the command on the plain model and a photograph; returns (exit code, stdout lines, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(classifier(), tmp_path / "plain.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    def call(*arguments, model="plain.onnx"):
        code = run(["explain", "photo.png", "-m", model, "--provider", "cpu", *arguments])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return call


def test_a_plain_model_is_exported_with_gradients_once(explain):
    arguments = ["--preprocess", "imagenet", "--method", "input-x-gradient", "--json"]
    code, out, err = explain(*arguments)
    assert code == 0
    assert "exporting it with gradients" in err
    document = json.loads(out[0])
    gap, total = (document["quality"][f"completeness_{name}"] for name in ("gap", "total"))
    assert f"completeness gap {gap:.3g} of {total:.3g}" in err
    code, _, err = explain(*arguments)
    assert code == 0
    assert "using its export" in err
    code, _, err = explain(
        "--preprocess", "imagenet", "--method", "lime", "--samples", "20", "--n-segments", "4", "--json"
    )
    assert code == 0
    assert "exporting it to" in err  # what asks for no gradients runs without them


def test_notes_are_said_and_written(explain):
    code, out, err = explain("--preprocess", "imagenet", "--method", "attribution-mask", "--json")
    assert code == 0
    notes = json.loads(out[0])["notes"]
    assert notes[0] == "the mask is built for the class that the model predicts"
    assert all(f"photo.png: {note}" in err for note in notes)
    _, out, err = explain("--preprocess", "imagenet", "--method", "attribution-mask", "--target", "2", "--json")
    assert "class that was given" in json.loads(out[0])["notes"][0]
    assert "class that was given" in err


def test_a_feature_map_by_name(explain):
    arguments = ["--preprocess", "imagenet", "--method", "grad-cam", "--set", "feature_map=features", "--json"]
    code, out, _ = explain(*arguments)
    assert code == 0
    assert json.loads(out[0])["settings"]["feature_map"] == "features"
    code, _, err = explain("--preprocess", "imagenet", "--method", "grad-cam", "--set", "feature_map=nothing")
    assert code == 2
    assert "no such feature map" in err


def test_samples_are_steps_and_noisy_images(explain):
    methods = ["--method", "integrated-gradients", "--method", "smoothgrad", "--method", "gradient"]
    code, out, _ = explain("--preprocess", "imagenet", *methods, "--samples", "3", "--json")
    assert code == 0
    settings = [json.loads(line)["settings"] for line in out]
    assert (settings[0]["n_steps"], settings[1]["n_samples"]) == (50, 3)  # steps are no samples
    code, out, _ = explain("--preprocess", "imagenet", *methods, "--samples", "3", "--set", "n_steps=4", "--json")
    settings = [json.loads(line)["settings"] for line in out]
    assert (settings[0]["n_steps"], settings[1]["n_samples"]) == (4, 3)
    code, out, _ = explain("--preprocess", "imagenet", *methods[:2], "--samples", "3", "--json")
    assert json.loads(out[0])["settings"]["n_steps"] == 3  # alone


def test_a_masked_file_without_gradients_gets_them_in_the_cache(explain, tmp_path):
    masked = tmp_path / "masked.onnx"
    masktool.export(
        classifier(), masked, preprocessing=Preprocessing(size=(8, 8), resize="exact"), output_kind="logits"
    )
    before = masked.read_bytes()
    code, out, err = explain("--method", "gradient", model="masked.onnx")
    assert (code, out) == (0, ["photo.gradient.png"])
    assert "gradients" in err.splitlines()[0]
    assert masked.read_bytes() == before
    assert len(list((tmp_path / "cache").rglob("*.onnx"))) == 1


def test_the_cache_key_changes_with_gradients_and_feature_map(explain):
    choices = [
        ModelChoice("plain.onnx"), ModelChoice("plain.onnx", gradient=True),
        ModelChoice("plain.onnx", gradient=True, feature_map="features"),
    ]  # fmt: skip
    assert len({request_export(choice).entry for choice in choices}) == 3


def test_gradients_are_needed_by_any_method():
    assert first_with_gradients({"lime": {}}) is None
    assert first_with_gradients({"lime": {}, "gradient": {}}) == "Gradient"
    assert feature_map_needs({"lime": {}, "gradient": {}}) == ()
    assert feature_map_needs({"grad-cam": {"feature_map": "x"}}) == ("x",)
