"""``masktool explain``: what is explained, as typed in a shell."""

import json

import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

from masktool.cli import run
from masktool.explainers.target import TARGETS

EXPLAIN = ["explain", "photo.png", "-m", "regions.onnx", "--method", "occlusion", "--provider", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise_photograph()).save("photo.png")
    write_region_model(tmp_path / "regions.onnx")
    write_region_model(tmp_path / "unknown.onnx", output_kind=None)
    return tmp_path


def test_a_contrast_and_a_sum(capsys):
    assert run([*EXPLAIN, "--target", "top left", "--against", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"]["against"] == {"index": 1, "label": "bottom right"}
    assert run([*EXPLAIN, "--target", "0", "--sum-with", "1", "--against", "background"]) == 0
    told = capsys.readouterr().err
    assert "Top Left or bottom right against background, difference of log-probabilities" in told


def test_several_contrasts_have_files_of_their_own(folder):
    assert run([*EXPLAIN, "--target", "0", "--target", "1", "--against", "2"]) == 0
    written = sorted(path.name for path in folder.glob("photo.occlusion.*.png"))
    assert written == [
        "photo.occlusion.0-Top_Left-against-2-background.png",
        "photo.occlusion.1-bottom_right-against-2-background.png",
    ]


def test_the_kinds_of_targets_are_listed(capsys):
    assert run(["explain", "--list-targets"]) == 0
    listed = capsys.readouterr().out
    for kind in TARGETS.values():
        assert f"{kind.name}: {kind.summary}\n" in listed
    assert "--target A --against B\n" in listed
    assert "--output NAME --target I,J:K,:\n" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "cat", "--against", "1"], "unknown label"),
        (["--target", "0", "--against", "7"], "expected an index from 0 to 2, got 7"),
        (["--target", "0", "--against", "Top Left"], "a target against itself"),
        (["--target", "0", "--against", "1", "-m", "unknown.onnx"], "needs logits or probabilities"),
        (["--target", "0", "--sum-with", "1", "--sum-with", "2"], "all classes sum to 1"),
        (["--output", "scores", "--target", "1:9"], "no such part"),
        (["--output", "scores", "--target", "2:2"], "no such part"),
        (["--target", "0", "--against", "1", "--score", "log-odds"], "leave the score out"),
    ],
)
def test_bad_targets_are_one_line(capsys, arguments, message):
    assert run([*EXPLAIN, *arguments]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "running on" not in each]
    assert message in line
