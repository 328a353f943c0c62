"""``masktool demo``, end to end."""

import json

import numpy as np
import pytest
from PIL import Image

from masktool import cli, demo
from masktool.commands.demo import SHOWN_METHODS, find_object
from masktool.contract import Preprocessing

SAMPLES = 400
"""Enough for the bound on the IoU, fewer than the default."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs the demo once; returns its directory and report."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    directory = tmp_path_factory.mktemp("demo") / "out"
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(["demo", "-o", str(directory), "--samples", str(SAMPLES), "--provider", "cpu", "--json"])
    assert code == 0, err.getvalue()
    return directory, json.loads(out.getvalue()), err.getvalue()


def test_every_method_finds_the_object(finished):
    explanations = finished[1]["explanations"]
    assert [each["method"] for each in explanations] == list(SHOWN_METHODS)
    for each in explanations:
        assert each["iou"] >= 2 * each["random_iou"], each
        assert each["random_iou"] == pytest.approx(0.06, abs=0.03)


def test_costs_are_reported(finished):
    passes = {each["method"]: each["forward_passes"] for each in finished[1]["explanations"]}
    assert passes["rise"] >= SAMPLES
    assert passes["lime"] >= SAMPLES
    assert all(finished[1]["timing"][method]["seconds"] > 0 for method in SHOWN_METHODS)


def test_pictures_are_where_it_says(finished):
    directory, report, _ = finished
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        ["sample.png", *(f"sample.{method}.png" for method in SHOWN_METHODS)]
    )
    for each in report["explanations"]:
        with Image.open(each["picture"]) as picture:
            picture.load()
            assert picture.width > 480
    assert (directory / "sample.png").read_bytes() == demo.sample_path().read_bytes()


def test_object_alone_keeps_the_class_and_without_it_the_class_is_gone(finished):
    whole, alone, without = finished[1]["predictions"]
    assert whole["predicted"] == alone["predicted"] == demo.sample_label()
    assert alone["true_probability"] > 0.5
    assert without["true_probability"] < whole["true_probability"] / 2


def test_provider_is_announced(finished):
    _, report, err = finished
    assert report["providers"] == ["CPUExecutionProvider"]
    assert "running on CPU" in err


def test_plain_output_for_people(tmp_path, capsys):
    assert cli.run(["demo", "-o", str(tmp_path), "--samples", "20", "--provider", "cpu"]) == 0
    out, err = capsys.readouterr()
    for method in SHOWN_METHODS:
        assert f"{tmp_path / f'sample.{method}.png'}" in out
    assert "all but the object" in out
    assert "masktool explain" in err


@pytest.mark.slow
def test_same_seed_same_figures(tmp_path, capsys):
    reports = []
    for seed in ("1", "1", "2"):
        options = ["--samples", "30", "--seed", seed, "--provider", "cpu", "--threads", "1", "--json"]
        assert cli.run(["demo", "-o", str(tmp_path), *options]) == 0
        report = json.loads(capsys.readouterr().out)
        del report["timing"]
        reports.append(report)
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_output_directory_that_is_a_file(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.run(["demo", "-o", str(blocked)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_output_directory_that_cannot_be_made(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.run(["demo", "-o", str(blocked / "below")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_object_covers_every_input_pixel_it_went_into():
    object_mask = np.zeros((400, 480), np.bool_)
    object_mask[200, 240] = True
    found = find_object(object_mask, Preprocessing(size=(64, 64), resize_to=64))
    assert found.sum() in range(1, 10)
    assert found[32, 32]
