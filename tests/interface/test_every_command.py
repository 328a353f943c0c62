"""What every command does is one call of the library."""

import json

import numpy as np
import onnx
import pytest
from explainers.models import noise_photograph
from networks.plain_classifier import write_plain_model
from PIL import Image

import masktool
from masktool import MasktoolError, cli

FUNCTIONS = {
    "bench": ("measure_costs",),
    "calibrate": ("calibrate",),
    "cache": ("list_cache", "clear_cache"),
    "doctor": ("doctor",),
    "evaluate": ("evaluate", "write_report"),
    "explain": ("explain", "explain_images", "explain_targets"),
    "export": ("export", "add_gradients_to", "check_export"),
    "gradient": ("differentiate",),
    "info": ("describe",),
    "package": ("package_triton", "package_kserve", "package_docker"),
    "train-masker": ("train_masker",),
}
"""By command; ``demo`` shows what the others do, and ``serve`` is no call that returns."""
FAST = {"n_samples": 20, "n_segments": 6, "providers": "cpu", "preprocessing": "imagenet"}


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_plain_model(tmp_path / "model.onnx")
    for seed in range(2):
        Image.fromarray(noise_photograph((20, 30), seed)).save(tmp_path / f"{seed}.png")
    return tmp_path


def test_no_command_is_left_out():
    assert {*FUNCTIONS, "demo", "serve"} == set(cli.SUMMARIES)
    assert all(callable(getattr(masktool, name)) for names in FUNCTIONS.values() for name in names)


def test_several_targets_of_a_plain_model(work):
    found = masktool.explain_targets("model.onnx", "0.png", [0, "top"], "lime", **FAST)
    alone = masktool.explain("model.onnx", "0.png", "lime", 0, **FAST)
    assert [each.target for each in found] == [0, masktool.explain("model.onnx", "0.png", "lime", **FAST).target]
    assert np.array_equal(found[0].attributions, alone.attributions, equal_nan=True)


def test_several_images_of_a_plain_model(work):
    found = masktool.explain_images("model.onnx", ["0.png", "1.png"], "lime", **FAST)
    for name, each in zip(("0.png", "1.png"), found, strict=True):
        alone = masktool.explain("model.onnx", name, "lime", **FAST)
        assert np.array_equal(each.attributions, alone.attributions, equal_nan=True)


def test_gradients_are_added_for_several_targets_too(work):
    found = masktool.explain_targets(
        "model.onnx", "0.png", [0, 1], "gradient", providers="cpu", preprocessing="imagenet"
    )
    assert [each.method for each in found] == ["gradient", "gradient"]


def test_what_is_wrong_is_told_before_an_export(work):
    with pytest.raises(MasktoolError, match="seed"):
        masktool.explain_targets("model.onnx", "0.png", [0], seed=-1)
    with pytest.raises(MasktoolError, match="seed"):
        masktool.explain_images("model.onnx", ["0.png"], seed=-1)
    with pytest.raises(MasktoolError, match=r"none\.png"):
        masktool.explain_targets("model.onnx", "none.png", [0], **FAST)
    with pytest.raises(MasktoolError, match=r"none\.png"):
        masktool.explain_images("model.onnx", ["0.png", "none.png"], **FAST)
    with pytest.raises(MasktoolError, match="no images to explain"):
        masktool.explain_images("model.onnx", [], **FAST)
    for several in ("images", "targets"):
        with pytest.raises(MasktoolError, match=f"one value in place of several .{several}"):
            masktool.explain_images(**{"model": "model.onnx", "images": ["0.png"], several: "star"}, **FAST)
    with pytest.raises(MasktoolError, match="one value in place of several"):
        masktool.explain_targets("model.onnx", "0.png", "star", **FAST)
    assert not (work / "cache").exists()


def test_an_exported_file_is_measured_again(work):
    masktool.export("model.onnx", "masked.onnx")
    alone, beside = masktool.check_export("masked.onnx"), masktool.check_export("masked.onnx", "model.onnx")
    assert not alone.failed
    assert not beside.failed
    assert {verdict.figure for verdict in alone.verdicts} < {verdict.figure for verdict in beside.verdicts}
    assert cli.run(["export", "--check", "masked.onnx", "model.onnx"]) == 0
    masked = onnx.load("masked.onnx")
    weights = next(each for each in masked.graph.initializer if each.name == "bias")
    weights.raw_data = np.zeros(4, np.float32).tobytes()
    onnx.save(masked, "altered.onnx")
    assert masktool.check_export("altered.onnx", "model.onnx").failed
    with pytest.raises(MasktoolError, match="file not found"):
        masktool.check_export("none.onnx")


@pytest.mark.parametrize("explained", [False, True])
def test_an_exported_file_is_not_compared_with_an_exported_one(work, capsys, explained):
    if explained:
        masktool.export_explained("model.onnx", "made.onnx", "occlusion", output_kind="probabilities")
    else:
        masktool.export("model.onnx", "made.onnx")
    for model in ("made.onnx", onnx.load("made.onnx")):
        with pytest.raises(
            MasktoolError, match=r"this one is an export itself .*: expected model\.onnx; give that model"
        ):
            masktool.check_export("made.onnx", model)
    capsys.readouterr()
    assert cli.run(["export", "--check", "made.onnx", "made.onnx"]) == 2
    assert "an export itself (made.onnx): expected model.onnx; give that model, or none" in capsys.readouterr().err


def test_what_is_installed(capsys, monkeypatch):
    monkeypatch.setattr("masktool.interface.installation.OPTIONAL", {})  # torch takes seconds
    findings = {finding.name: finding for finding in masktool.doctor()}
    assert findings["CPU"].state == "ok"
    assert cli.run(["doctor", "--json"]) == 0
    assert set(findings) == {finding["name"] for finding in json.loads(capsys.readouterr().out)["findings"]}
