"""Classes over regions of a segmentation: their numbers, their regions, what is drawn, and what is refused."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool import Contrast, MasktoolError, OutputRegion, explain, explain_targets, load
from masktool.cli import run
from masktool.contract import Preprocessing
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.outlines import LINE
from masktool.explainers.regions import cover_places
from masktool.explainers.target import TargetError
from masktool.interface.rows import explanation_row
from masktool.runtime.preprocessing import PreparedImage

SEGMENTER = """
<ir_version: 10, opset_import: ["" : 20]>
segmenter (float[N, 3, 16, 24] image) => (float[N, 4, 8, 12] scores)
<float[4, 3, 2, 2] kernel>
{
    scores = Conv<strides = [2, 2]>(image, kernel)
}
"""
"""Places see 2 x 2 pixels each: class 0 their red, 1 their green, 2 their blue, 3 nothing."""
NHWC = """
<ir_version: 10, opset_import: ["" : 20]>
segmenter (float[N, 16, 24, 3] image) => (float[N, 8, 12, 4] scores)
<float[4, 3, 2, 2] kernel>
{
    planes = Transpose<perm = [0, 3, 1, 2]>(image)
    found = Conv<strides = [2, 2]>(planes, kernel)
    scores = Transpose<perm = [0, 2, 3, 1]>(found)
}
"""
KERNEL = np.zeros((4, 3, 2, 2), np.float32)
KERNEL[0, 0] = KERNEL[1, 1] = KERNEL[2, 2] = 0.25
LABELS = ("red", "green", "blue", "nothing")
SIZE = (16, 24)
RED, GREEN = (slice(2, 6), slice(4, 12)), (slice(8, 14), slice(14, 22))
"""Where the picture is red, and where it is green; all lies on the borders of places."""


def write_segmenter(path, text=SEGMENTER, **options):
    options = {"labels": LABELS, "class_output": "none", "preprocessing": Preprocessing(SIZE, "exact")} | options
    masktool.export(parse(text, kernel=KERNEL), path, **options)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp("regions") / "segmenter.onnx")


@pytest.fixture(scope="module")
def session(path):
    with load(path, "cpu", threads=1) as session:
        yield session


def photograph():
    """Red and green rectangles on dark blue, with some of the other colour in each."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[..., 2] = 51
    pixels[RED] = (204, 51, 0)
    pixels[GREEN] = (51, 153, 0)
    return pixels


def mask_of(*places):
    mask = np.zeros(SIZE, np.bool_)
    for each in places:
        mask[each] = True
    return mask


REGIONS = {
    "auto": ("red", "auto", 0.8),
    "box around red": ("red", "4,2,12,6", 0.8),
    "half of the box is blue": ("red", (4, 2, 20, 6), 0.4),
    "within a place": ("green", (14.5, 8.5, 15, 9), 0.6),
    "half a place of each colour": ("red", mask_of((2, 4), (8, 14)), 0.5),
    "both": ("green", mask_of(RED, GREEN), (0.2 * 32 + 0.6 * 48) / 80),
    "the highest there": (None, (14, 8, 22, 14), 0.6),
    "by its index": ("3", (0, 0, 24, 16), 0),
}


@pytest.mark.parametrize(("target", "region", "expected"), REGIONS.values(), ids=REGIONS)
def test_the_score_is_the_mean_over_the_region(session, target, region, expected):
    found = explain(session, photograph(), "occlusion", target, region=region)
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert (found.output, found.score_name) == ("scores", "mean score")
    if target is None:
        assert (found.label, found.question.given) == ("green", False)


def test_hiding_what_the_region_sees_is_all_that_matters(session):
    found = explain(session, photograph(), "occlusion", "red", region="auto", sliding_window_shapes=(2, 2), strides=2)
    inside = mask_of(RED)
    np.testing.assert_allclose(found.attributions[inside], 0.8 / 8, atol=1e-6)
    assert not found.attributions[~inside].any()


def test_a_file_holds_a_mask_of_the_photograph(session, tmp_path):
    Image.fromarray(mask_of(RED)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", mask_of(RED))
    asked = [OutputRegion("red", tmp_path / name) for name in ("mask.png", "mask.npy")]
    one, other = explain_targets(session, photograph(), [*asked], "occlusion")
    assert one.score == other.score == pytest.approx(0.8)
    assert one.question == other.question
    assert hash(one.question) == hash(other.question)


def test_why_this_class_and_not_the_other_is_asked_over_the_region_of_the_first(session):
    found = explain(session, photograph(), "occlusion", "green", against="red", region="auto")
    assert found.score == pytest.approx(0.6 - 0.2)
    assert found.score_name == "difference of mean scores"
    assert found.question.region_pixels(SIZE, (0, 0, 24, 16)).tolist() == mask_of(GREEN).tolist()
    same = Contrast(OutputRegion("green"), OutputRegion("red", predicted="green"))
    assert explain(session, photograph(), "occlusion", same).question == found.question


@pytest.mark.parametrize("channels", ["NCHW", "NHWC"])
def test_the_axis_of_the_classes_follows_from_the_labels_or_the_layout(tmp_path, channels):
    text = SEGMENTER if channels == "NCHW" else NHWC
    file = write_segmenter(tmp_path / "segmenter.onnx", text, labels=("a", "b"))
    with load(file, "cpu", threads=1) as session:
        found = explain(session, photograph(), "occlusion", 1, region="auto")
        assert found.score == pytest.approx(0.6)
        assert found.label is None
        with pytest.raises(TargetError, match=r"labels do not fit the output \(target 'b'\): expected 4, got 2"):
            explain(session, photograph(), "occlusion", "b", region="auto")


def test_a_region_is_cropped_and_scaled_as_the_photograph_is(tmp_path):
    """Against each place's share of the region, counted on a fine grid."""
    rng = np.random.default_rng(0)
    prepared = PreparedImage(np.zeros((1, 3, *SIZE), np.float32), SIZE, (30, 40), (-3.5, 4.25, 37.0, 26.5))
    mask = rng.random((30, 40)) < 0.3
    box = (3.2, 9.9, 31.5, 29.25)
    fine = 64
    places = (8, 12)
    rows = 4.25 + (np.arange(8 * fine) + 0.5) * (26.5 - 4.25) / (8 * fine)
    columns = -3.5 + (np.arange(12 * fine) + 0.5) * (37.0 + 3.5) / (12 * fine)
    inside = np.outer((rows > box[1]) & (rows < box[3]), (columns > box[0]) & (columns < box[2]))
    covered = mask[np.ix_(rows.astype(int), np.clip(columns, 0, 39).astype(int))] & (columns > 0)
    for region, expected in ((box, inside), (mask, covered)):
        shares = expected.reshape(8, fine, 12, fine).mean(axis=(1, 3))
        np.testing.assert_allclose(cover_places(region, prepared, places), shares, atol=2 / fine)


def test_what_the_values_are_is_read_off_them():
    settled = OutputRegion(1, (0, 0, 2, 2), "y")
    prepared = PreparedImage(np.zeros((1, 3, 2, 2), np.float32), (2, 2), (2, 2), (0, 0, 2, 2))
    metadata = masktool.Metadata(
        masking="layer", source="m", source_sha256="0" * 64, image_input="x", class_output=None, output_kind=None,
        preprocessing=None, labels=None, parity={}, tool_version="1",
    )  # fmt: skip
    for values, name in (([0.25, 0.75], "mean probability"), ([0.5, 0.75], "mean score"), ([-1, 2], "mean logit")):
        scores = np.broadcast_to(np.array(values, np.float32)[None, :, None, None], (1, 2, 2, 2))
        outputs = ModelOutputs(metadata, {"y": scores}, prepared=prepared)
        assert settled.settle(outputs).score_name(outputs) == name
        assert settled.settle(outputs).read(outputs)[0] == pytest.approx(values[1])


def test_a_picture_shows_the_outline_and_a_document_says_the_region(session):
    found = explain(session, photograph(), "occlusion", "red", region=(4, 2, 12, 6))
    picture = np.asarray(found.plot())
    rows, columns = np.nonzero((picture == LINE).all(axis=2))
    left = columns < picture.shape[1] // 2
    height, width = np.ptp(rows[left]) + 1, np.ptp(columns[left]) + 1
    assert height / width == pytest.approx(4 / 8, abs=0.05)
    assert (
        not (np.asarray(explain(session, photograph(), "occlusion", (0, 0, 0), output="scores").plot()) == LINE)
        .all(axis=2)
        .any()
    )
    document = json.loads(found.to_json())
    assert document["target"] == {
        "kind": "region", "output": "scores", "index": 0, "label": "red", "region": [4, 2, 12, 6], "places": 8,
        "mean score": pytest.approx(0.8),
    }  # fmt: skip
    assert [each["label"] for each in document["scores"]] == ["red", "green", "blue", "nothing"]
    assert found.question.title == "red (0) in 4,2,12,6"
    assert pickle.loads(pickle.dumps(found.question)) == found.question
    assert json.loads(explanation_row(found, "photo", None)["asked"])["region"] == [4, 2, 12, 6]


BAD = {
    "outside": (["--target", "red", "--region", "4,2,30,6"], "a region outside the picture"),
    "no area": (["--target", "red", "--region", "4,6,12,6"], "a region without area"),
    "three numbers": (["--target", "red", "--region", "4,6,12"], "no such region"),
    "no such file": (["--target", "red", "--region", "missing.png"], "missing.png"),
    "another size": (["--target", "red", "--region", "small.npy"], "of another size than the picture"),
    "empty file": (["--target", "red", "--region", "empty.npy"], "a region of no pixels"),
    "predicted nowhere": (["--target", "nothing", "--region", "auto"], "the class is predicted nowhere in the picture"),
    "no class": (["--region", "auto"], "a region that is predicted as a class needs the class"),
    "no such class": (["--target", "yellow", "--region", "auto"], "unknown label"),
    "index past the classes": (["--target", "4", "--region", "auto"], "no such class"),
    "no such output": (["--target", "red", "--region", "auto", "--output", "boxes"], "boxes"),
    "a sum": (["--target", "red", "--sum-with", "green", "--region", "auto"], "a sum is of classes of the picture"),
    "log-odds": (["--target", "red", "--region", "auto", "--score", "log-odds"], "log-odds are of classes' scores"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(photograph()).save(folder / "photo.png")
    np.save(folder / "small.npy", np.ones((8, 12), np.bool_))
    np.save(folder / "empty.npy", np.zeros(SIZE, np.bool_))
    return folder


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(path, folder, monkeypatch, capsys, options, message):
    monkeypatch.chdir(folder)
    command = ["explain", "photo.png", "-m", str(path), "--method", "occlusion", "--provider", "cpu"]
    assert run([*command, *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("masktool: error: ")
    assert message in error


def test_the_command_explains_a_region(path, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    command = ["explain", "photo.png", "-m", str(path), "--method", "occlusion", "--provider", "cpu", "--json"]
    np.save(folder / "red.npy", mask_of(RED))
    for region in ("4,2,12,6", "red.npy"):
        assert run([*command, "--target", "red", "--region", region]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["target"]["mean score"] == pytest.approx(0.8)


def test_other_outputs_are_refused(session, tmp_path):
    with pytest.raises(TargetError, match=r"no output is a segmentation .*logits \(\?, 4\)"):
        OutputRegion(0).fit({"logits": (None, 4)}, SIZE)
    two = {"out": (None, 3, 8, 12), "aux": (None, 3, 8, 12)}
    with pytest.raises(TargetError, match=r"several outputs may be a segmentation .*name it with output"):
        OutputRegion(0).fit(two, SIZE)
    assert OutputRegion(0, output="aux").fit(two, SIZE).output == "aux"
    with pytest.raises(TargetError, match=r"the output is no segmentation \(output 'logits'\)"):
        OutputRegion(0, output="logits").fit({"logits": (None, 4)}, SIZE)
    with pytest.raises(MasktoolError, match=r"the target says itself what it is of .*leave the region out"):
        explain(session, photograph(), "occlusion", OutputRegion("red"), region="auto")


def test_gradients_are_refused_by_name(session):
    with pytest.raises(MasktoolError, match=r"needs gradients"):
        explain(session, photograph(), "gradient", "red", region="auto")
