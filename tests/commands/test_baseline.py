"""``--masking fill --baseline ...`` through export, info and explain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks.small_graphs import classifier
from PIL import Image

from masktool.cli import run
from masktool.interface.kept_exports import request_export
from masktool.interface.options import ModelChoice
from masktool.runtime import MaskedSession


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a small plain model and a photograph in it, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(classifier(), "small.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path


FILL = ["--preprocess", "imagenet", "--masking", "fill"]
EXPLAIN = ["explain", "photo.png", "--samples", "20", "--n-segments", "4", "--provider", "cpu", "--json"]


def test_export_and_info_say_the_baseline(capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx", *FILL, "--baseline", "0, 128,255"]) == 0
    assert "masked: the input alone, filled with 0, 128,255\n" in capsys.readouterr().err
    assert run(["info", "small.masked.onnx"]) == 0
    out = capsys.readouterr().out
    assert "masked by masktool (fill, baseline 0, 128,255); " in out
    assert "masktool::Fill" in out
    assert run(["info", "small.masked.onnx", "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out)["metadata"]
    assert (metadata["masking"], metadata["baseline"]) == ("fill", "0, 128,255")


def test_info_of_layer_masking_says_no_baseline(capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx"]) == 0
    assert run(["info", "small.masked.onnx"]) == 0
    assert "masked by masktool (layer, rule published); " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("imagenet", "filled with mean\n"),
        ("tf", "filled with mean\n"),
        ("plain.json", "filled with mean, which is 0 in the input; the preprocessing subtracts no mean, so that 0 may"),
        (None, "filled with mean, which is 0 in the input; the preprocessing is unknown, so that 0 may be another"),
    ],
)
def test_a_mean_that_may_be_none_is_said(
    preprocess: str | None, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "plain.json").write_text('{"resize": "exact"}')
    options = [] if preprocess is None else ["--preprocess", preprocess]
    assert run(["export", "small.onnx", "--masking", "fill", *options]) == 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "black"], "only fill takes a baseline (--masking layer): black; add --masking fill"),
        (["--masking", "fill", "--baseline", "pink"], "unknown baseline (--baseline pink): expected black, grey, mean"),
        (["--masking", "fill", "--baseline", "grey"], "needs to know how pixels become the input (--baseline grey)"),
    ],
)
def test_bad_use_is_one_line(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(folder.rglob("*"))
    assert run(["export", "small.onnx", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert sorted(folder.rglob("*")) == before


def test_explain_exports_each_way_of_masking_into_the_cache(folder: Path, capsys: pytest.CaptureFixture[str]):
    model = ["-m", "small.onnx", *FILL]
    for baseline in ("black", "noise"):
        assert run([*EXPLAIN, *model, "--baseline", baseline]) == 0
    exported = sorted((folder / "cache" / "masktool" / "models").glob("*/*.onnx"))
    assert len(exported) == 2
    baselines = set()
    for path in exported:
        with MaskedSession(path, providers="cpu") as session:
            baselines.add(session.metadata.baseline)
    assert baselines == {"black", "noise"}
    capsys.readouterr()
    assert run([*EXPLAIN, *model, "--baseline", "noise"]) == 0
    assert "using its export" in capsys.readouterr().err


def test_the_cache_key_changes_with_the_way_of_masking():
    choices = [ModelChoice("small.onnx", masking=masking) for masking in (None, "partial", "fill")]
    choices.append(ModelChoice("small.onnx", masking="fill", baseline="blur"))
    assert len({request_export(choice).entry for choice in choices}) == 4
    layer = ModelChoice("small.onnx", masking="layer")
    assert request_export(layer).entry == request_export(choices[0]).entry


@pytest.mark.parametrize("model", [["-m", "small.masked.onnx"], []])
def test_a_model_that_is_masked_already_keeps_its_way(model: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(["export", "small.onnx", "--preprocess", "imagenet"]) == 0
    capsys.readouterr()
    assert run([*EXPLAIN, *model, "--masking", "fill"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "the model is masked already" in err
    assert "--masking fill; leave that out, or name the plain model with -m" in err
