"""Detections as targets: D-RISE's similarity and map, computed anew from the source's outputs, place by place."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool import Contrast, Detection, MasktoolError
from masktool.cli import run
from masktool.contract import Preprocessing
from masktool.explainers.marks import CHOSEN, OTHER
from masktool.explainers.methods.rise import EnlargedGrids, Rise
from masktool.explainers.reading import read_scores
from masktool.explainers.subject import make_subject, read_subject
from masktool.explainers.targets.detection import SettledDetection

SIDE, CLASSES = 32, 3
PLACES = [(x, y, stride) for stride in (8, 16, 32) for y in range(SIDE // stride) for x in range(SIDE // stride)]
YOLOX = """
<ir_version: 10, opset_import: ["" : 20]>
detector (float[N, 3, 32, 32] image) => (float[N, 21, 8] output)
<float[6, 3, 3, 3] kernel, float[8, 6, 8, 8] fine, float[8, 6, 16, 16] middle, float[8, 6, 32, 32] coarse,
 float[8] bias>
{
    a = Conv<pads = [1, 1, 1, 1]>(image, kernel) h = Relu(a) shape = Constant<value_ints = [0, 8, -1]>()
    c8 = Conv<strides = [8, 8]>(h, fine, bias) r8 = Reshape(c8, shape)
    c16 = Conv<strides = [16, 16]>(h, middle, bias) r16 = Reshape(c16, shape)
    c32 = Conv<strides = [32, 32]>(h, coarse, bias) r32 = Reshape(c32, shape)
    joined = Concat<axis = 2>(r8, r16, r32) rows = Transpose<perm = [0, 2, 1]>(joined)
    sizes = Constant<value_ints = [4, 4]>() given, raw = Split<axis = 2>(rows, sizes)
    scores = Sigmoid(raw) output = Concat<axis = 2>(given, scores)
}
"""
LISTS = """
<ir_version: 10, opset_import: ["" : 20]>
detector (float[1, 3, 32, 32] image) => (float[k, 4] boxes, int64[k] labels, float[k] scores)
<float[6, 3, 3, 3] kernel, float[5, 6, 8, 8] head, float[4, 16] middles, float[5] bias>
{
    a = Conv<pads = [1, 1, 1, 1]>(image, kernel) h = Relu(a) d = Conv<strides = [8, 8]>(h, head, bias)
    shape = Constant<value_ints = [1, 5, 16]>() rows = Reshape(d, shape)
    sizes = Constant<value_ints = [4, 1]>() given, raw = Split<axis = 1>(rows, sizes)
    sides = Abs(given) around = Add(sides, middles) all = Transpose<perm = [0, 2, 1]>(around) every = Sigmoid(raw)
    most = Constant<value_ints = [9]>() same = Constant<value_floats = [0.5]>()
    least = Constant<value_floats = [0.45]>() selected = NonMaxSuppression(all, every, most, same, least)
    last = Constant<value_ints = [2]>() p = Gather<axis = 1>(selected, last) flat = Constant<value_ints = [-1]>()
    place = Reshape(p, flat) one = Constant<value_ints = [0]>() plain = Squeeze(all, one) line = Reshape(every, flat)
    boxes = Gather(plain, place) scores = Gather(line, place) two = Constant<value_int = 2>() labels = Mod(place, two)
}
"""


def draw_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    kernels = {"fine": 8, "middle": 16, "coarse": 32}
    weights = {name: random.normal(0, 3 / side, (8, 6, side, side)) for name, side in kernels.items()}
    bias = np.array([0, 0, 0.5, 0.5, 0, -0.5, 0, 0.3])
    return {**weights, "kernel": random.normal(0, 0.2, (6, 3, 3, 3)), "bias": bias}


def place_middles() -> np.ndarray:
    """What a box of the second network lies around: its corner, and its end 12 pixels on."""
    corner = [(8 * x, 8 * y) for y in range(4) for x in range(4)]
    return np.array([(x, y, x + 12, y + 12) for x, y in corner], np.float32).T


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detections")
    onnx.save(parse(YOLOX, **draw_weights()), folder / "yolox.onnx")
    head = {"head": np.random.default_rng(2).normal(0, 0.3, (5, 6, 8, 8)), "bias": [0, 0, 0, 0, 0.2]}
    onnx.save(parse(LISTS, middles=place_middles(), kernel=draw_weights()["kernel"], **head), folder / "lists.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    preprocessing = Preprocessing((SIDE, SIDE), "exact")
    for name in ("yolox", "lists"):
        masktool.export(
            folder / f"{name}.onnx", folder / f"{name}.fill.onnx", masking="fill", baseline="black",
            preprocessing=preprocessing, class_output="none",
        )  # fmt: skip
    masktool.export(
        folder / "yolox.onnx", folder / "yolox.layer.onnx", preprocessing=preprocessing, class_output="none"
    )
    return folder


@pytest.fixture(scope="module")
def filled(folder):
    with masktool.load(folder / "yolox.fill.onnx", "cpu", threads=1) as session:
        yield session


def draw_masks(count: int = 12) -> np.ndarray:
    return (np.random.default_rng(7).random((count, 1, SIDE, SIDE)) < 0.7).astype(np.float32)


def input_of(folder: Path) -> np.ndarray:
    """The photograph as the model takes it, resized by Pillow."""
    resized = Image.open(folder / "photo.png").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (np.asarray(resized, np.float32) / 255).transpose(2, 0, 1)[None]


def run_source(path: Path, images: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})


def list_yolox(rows: np.ndarray) -> list[tuple]:
    """(box, class scores, objectness) of every place of one image."""
    found = []
    for row, (x, y, stride) in zip(rows, PLACES, strict=True):
        centre_x, centre_y = (row[0] + x) * stride, (row[1] + y) * stride
        width, height = math.exp(row[2]) * stride, math.exp(row[3]) * stride
        box = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
        found.append((box, [float(each) for each in row[5:]], float(row[4])))
    return found


def intersect(a, b) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def compare_detections(target, others) -> float:
    """METHODS, section F: the largest over the detections of IoU · cosine(class scores) · objectness."""
    box, classes, _ = target
    length = math.hypot(*classes)
    values = [0.0]
    for other_box, other_classes, objectness in others:
        product = sum(a * b for a, b in zip(classes, other_classes, strict=True))
        lengths = length * math.hypot(*other_classes)
        values.append(intersect(box, other_box) * product / lengths * objectness if lengths else 0.0)
    return max(values)


def find_target(found: list[tuple]) -> tuple:
    """The place with the highest score: objectness times its highest class."""
    return max(found, key=lambda each: each[2] * max(each[1]))


def test_the_similarity_is_drises(folder, filled) -> None:
    image, masks = input_of(folder), draw_masks()
    target = find_target(list_yolox(run_source(folder / "yolox.onnx", image)[0][0]))
    hidden = [list_yolox(rows) for rows in run_source(folder / "yolox.onnx", image * masks)[0]]
    expected = [compare_detections(target, found) for found in hidden]
    assert len({round(each, 3) for each in expected}) > 6
    settled, reading = settle(filled, folder, "box:0")
    got = settled.read(reading.under_masks(image, masks))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert settled.read(reading.whole)[0] == pytest.approx(compare_detections(target, [target]), rel=1e-5)


def settle(session, folder, which):
    subject = make_subject(read_subject(folder / "photo.png"), session)
    target = Detection(which).fit(session.output_shapes, subject.prepared.size)
    reading = read_scores(session, subject, [target], None)
    return target.settle(reading.whole), reading


def test_the_map_of_rise_is_drises(folder, filled) -> None:
    """The published sum of masks by their weights, over their expected number; masks are those of the method."""
    count, seed = 40, 3
    options = {"estimator": "mean", "normalisation": "expected"}
    found = masktool.explain(
        filled, folder / "photo.png", "rise", "box:0", n_samples=count, seed=seed, until=None, **options
    )
    method, design = Rise(n_masks=count, **options), EnlargedGrids((SIDE, SIDE), 7, cut=False)
    grids = itertools.chain.from_iterable([method.grids((SIDE, SIDE), seed, [range(count)])])
    (masks,) = [design.expand(each.rows()) for each in grids]
    image = input_of(folder)
    target = find_target(list_yolox(run_source(folder / "yolox.onnx", image)[0][0]))
    rows = run_source(folder / "yolox.onnx", (image * masks).astype(np.float32))[0]
    weights = [compare_detections(target, list_yolox(each)) for each in rows]
    expected = sum(weight * mask[0] for weight, mask in zip(weights, masks, strict=True)) / (count * method.p)
    np.testing.assert_allclose(found.model_attributions, expected, rtol=1e-3, atol=1e-5)
    assert found.score_name == "similarity"
    assert found.meaning == "mean similarity while kept"
    assert found.forward_passes == count + 1


def test_lists_of_chosen_boxes_are_explained_behind_fill(folder) -> None:
    image = input_of(folder)
    masks = np.concatenate([draw_masks(), np.zeros((1, 1, SIDE, SIDE), np.float32)])
    found = [run_source(folder / "lists.onnx", each[None]) for each in image * masks]
    assert len({len(boxes) for boxes, _, _ in found}) > 2
    boxes, labels, scores = run_source(folder / "lists.onnx", image)
    first = int(scores.argmax())
    expected = [
        max(
            [
                0.0,
                *(
                    intersect(boxes[first], box) * score
                    for box, label, score in zip(*each, strict=True)
                    if label == labels[first]
                ),
            ]
        )
        for each in found
    ]
    with masktool.load(folder / "lists.fill.onnx", "cpu", threads=1) as session:
        settled, reading = settle(session, folder, "box:0")
        assert settled.describe()["detector"] == "boxes+scores"
        np.testing.assert_allclose(settled.read(reading.under_masks(image, masks)), expected, rtol=1e-4, atol=1e-6)
        assert masktool.explain(session, folder / "photo.png", "occlusion", "box:0").forward_passes > 1


def test_a_contrast_of_two_boxes_is_the_difference_of_their_similarities(folder, filled) -> None:
    both = masktool.explain_targets(filled, folder / "photo.png", ["box:0", "box:1"], "occlusion")
    found = masktool.explain(filled, folder / "photo.png", "occlusion", "box:0", against="box:1")
    expected = both[0].attributions - both[1].attributions
    np.testing.assert_allclose(found.attributions, expected, atol=1e-6)
    assert found.score_name == "difference of similarities"
    assert Contrast(Detection("box:0"), Detection("box:1")).fit({"output": (None, 21, 8)}, (32, 32)).outputs == (
        "output",
    )


def test_a_file_that_masks_every_layer_does_as_well(folder) -> None:
    found = masktool.explain(folder / "yolox.layer.onnx", folder / "photo.png", "lime", "box:0", providers="cpu")
    assert found.forward_passes <= 250
    assert found.settings["budget"] == 250
    assert np.ptp(found.attributions) > 0


def test_words_near_a_point_choose_the_nearest_of_a_class(folder, filled) -> None:
    (first,) = masktool.explain_targets(filled, folder / "photo.png", ["box:0"], "occlusion")
    found = first.question.found
    assert len(found) > 2
    for index, each in enumerate(found):
        x, y = (each.box[0] + each.box[2]) / 2, (each.box[1] + each.box[3]) / 2
        if not (0 <= x <= 64 and 0 <= y <= 48):
            continue
        settled, _ = settle(filled, folder, f"{each.label} near {x:.3f},{y:.3f}")
        same = [other for other in found if other.label == each.label]
        inside = [other for other in same if other.box[0] <= x <= other.box[2] and other.box[1] <= y <= other.box[3]]
        assert settled.chosen in inside
        assert settled.index == f"box:{index}" or len(inside) > 1


def test_what_an_explanation_says_of_a_box(folder, filled) -> None:
    found = masktool.explain(filled, folder / "photo.png", "occlusion", "box:1")
    image = input_of(folder)
    rows = list_yolox(run_source(folder / "yolox.onnx", image)[0][0])
    document = json.loads(found.to_json())["target"]
    assert (document["kind"], document["index"], document["detector"]) == ("detection", "box:1", "yolox")
    box, classes, objectness = rows[found.question.chosen.place]
    scaled = [box[0] * 64 / SIDE, box[1] * 48 / SIDE, box[2] * 64 / SIDE, box[3] * 48 / SIDE]
    assert document["box"] == pytest.approx(scaled, rel=1e-4)
    assert document["class"] == int(np.argmax(classes))
    assert document["objectness"] == pytest.approx(objectness, rel=1e-4)
    assert [each.index for each in found.scores][:2] == ["box:0", "box:1"]
    assert pickle.loads(pickle.dumps(found.question)) == found.question


def test_the_boxes_are_drawn_the_explained_one_boldly(folder, filled) -> None:
    found = masktool.explain(filled, folder / "photo.png", "occlusion", "box:0")
    pixels = np.asarray(found.plot())
    bold, thin = ((pixels == colour).all(axis=2).sum() for colour in (CHOSEN, OTHER))
    assert bold > 500
    assert thin > 50


ASKED = ["explain", "photo.png", "-m", "yolox.fill.onnx", "--method", "occlusion", "--provider", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "box:99"], "expected box:0 to box:"),
        (["--target", "cat near 3,3"], "the model has no labels"),
        (["--target", "7 near 3,3"], "no such detection"),
        (["--target", "near 65,3"], "a point outside the picture"),
        (["--target", "near -1,3"], "a point outside the picture"),
        (["--target", "box:0", "--detector", "detr"], "no outputs of a detr detector"),
        (["--target", "box:0", "--detector", "end2end"], "no outputs of a end2end detector"),
        (["--target", "0", "--detector", "yolox"], "the kind of a detector is for detections"),
        (["--target", "0", "--least-score", "0.1"], "for detections (--least-score 0.1); explain one: --target box:K|"),
        (["--target", "0", "--region", "auto", "--least-score", "0.1"], "(--least-score 0.1); leave the region out"),
        (["--reference", "photo.png", "--least-score", "0.1"], "a target itself (--reference, --least-score)"),
        (["--target", "box:0", "--least-score", "1"], "expected a score of at least 1, got "),
        (["--target", "box:0", "--least-score", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--target", "box:0", "--least-score", "nan"], "expected a number in 0..1, got nan"),
        (["--target", "box:0", "--score", "log-odds"], "leave the score out"),
        (["--target", "box:0", "--sum-with", "box:1"], "a sum is of classes"),
        (["photo.png", "-m", "black.onnx", "--target", "box:0"], "nothing is detected in the picture"),
        ([], "or of a detector --target box:0"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_line(folder, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(folder)
    if "black.onnx" in arguments and not (folder / "black.onnx").exists():
        silent = draw_weights() | {"bias": np.array([0, 0, 0, 0, -20, -20, -20, -20])}
        onnx.save(parse(YOLOX, **silent), folder / "silent.onnx")
        masktool.export(
            folder / "silent.onnx", folder / "black.onnx", preprocessing=Preprocessing((SIDE, SIDE), "exact"),
            masking="fill", class_output="none",
        )  # fmt: skip
    assert run([*ASKED, *arguments]) == 2
    lines = [each for each in capsys.readouterr().err.splitlines() if not each.startswith(("running on", "model:"))]
    assert message in lines[-1]


def test_another_word_for_the_same_head(folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    assert run([*ASKED, "--target", "box:0", "--detector", "yolox", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["detector"] == "yolox"
    with pytest.raises(MasktoolError, match=r"says another itself \(detector=\"yolox\"\).*: yolov5;"):
        masktool.explain(
            "yolox.fill.onnx", "photo.png", "occlusion", Detection("box:0", "yolov5"), detector="yolox", providers="cpu"
        )
    with pytest.raises(MasktoolError, match="not a detection"):
        Detection("box")


def test_the_least_score_of_a_detection_is_an_option(folder, filled, monkeypatch, capsys, tmp_path) -> None:
    """One place of the source's has a score above it, and is the only detection then."""
    monkeypatch.chdir(folder)
    places = list_yolox(run_source(folder / "yolox.onnx", input_of(folder))[0][0])
    scores = sorted(each[2] * max(each[1]) for each in places)
    least = scores[-2] + 1e-3
    assert least < scores[-1]
    asked = [*ASKED, "--target", "box:0", "--least-score", f"{least:.4f}", "--json", "-o", str(tmp_path)]
    assert run([*asked, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"]["least_score"] == pytest.approx(least, abs=1e-4)
    assert [each["index"] for each in document["scores"]] == ["box:0"]
    few = masktool.explain(filled, "photo.png", "occlusion", "box:0", least_score=least)
    usual = masktool.explain(filled, "photo.png", "occlusion", "box:0")
    assert len(few.question.found) == 1 < len(usual.question.found)
    assert usual.question.describe()["least_score"] == 0.25
    with pytest.raises(MasktoolError, match=r"says another itself \(least_score=0.2\).*: 0.5;"):
        masktool.explain(filled, "photo.png", "occlusion", Detection("box:0", least_score=0.5), least_score=0.2)
    for wrong in (-0.1, 1.1, float("nan"), "many", True):
        with pytest.raises(MasktoolError, match=r"option out of range \(least_score\): expected a number in 0..1"):
            Detection("box:0", least_score=wrong)


def test_a_detection_is_small_and_knows_its_outputs(folder, filled) -> None:
    settled, _ = settle(filled, folder, "box:0")
    assert isinstance(settled, SettledDetection)
    assert settled.outputs == ("output",)
    assert len(pickle.dumps(settled)) < 5000
    again, _ = settle(filled, folder, "box:0")
    assert (settled, hash(settled)) == (again, hash(again))


def test_boxes_of_a_letterbox_are_brought_back_into_the_picture(folder) -> None:
    path = folder / "letterbox.onnx"
    preset = Preprocessing((SIDE, SIDE), "letterbox", padding=114)
    masktool.export(folder / "yolox.onnx", path, masking="fill", preprocessing=preset, class_output="none")
    with masktool.load(path, "cpu", threads=1) as session:
        settled, _ = settle(session, folder, "box:0")
    box = settled.box  # 64 x 48 pixels became 32 x 24, with 4 rows of grey above and below
    assert settled.chosen.box == pytest.approx((2 * box[0], 2 * (box[1] - 4), 2 * box[2], 2 * (box[3] - 4)))


def test_by_default_a_detection_takes_250_passes_at_most(folder, filled) -> None:
    for method in ("rise", "occlusion", "kernel-shap"):
        assert masktool.explain(filled, folder / "photo.png", method, "box:0").forward_passes <= 250
    asked = masktool.explain(filled, folder / "photo.png", "rise", "box:0", against="box:1", n_samples=300, until=None)
    assert (asked.forward_passes, "budget" in asked.settings) == (301, False)
