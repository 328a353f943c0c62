"""Boxes (y0, x0, y1, x1) of TensorFlow's detection API, against shares read anew from the source's outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse
from PIL import Image

import masktool
from masktool import Detection, MasktoolError
from masktool.contract import Preprocessing
from masktool.explainers.detection_checks import check_corners
from masktool.explainers.detector import DETECTORS, choose_detector
from masktool.explainers.reading import read_scores
from masktool.explainers.subject import make_subject, read_subject

SIDE = 32
WIDTH, HEIGHT = 64, 48
"""Of the photograph: other than high, so that a swap of x and y shows."""
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
ssd (float[N, 3, 32, 32] image) => (float[N, 16, 4] detection_boxes, float[N, 16] detection_scores,
 float[N, 16] detection_classes, float[N] num_detections)
<float[5, 3, 8, 8] kernel, float[4, 16] middles, float[16] classes>
{
    d = Conv<strides = [8, 8]>(image, kernel) shape = Constant<value_ints = [0, 5, 16]>() rows = Reshape(d, shape)
    sizes = Constant<value_ints = [4, 1]>() given, raw = Split<axis = 1>(rows, sizes)
    step = Constant<value_float = 0.05>() moved = Mul(given, step) around = Add(moved, middles)
    detection_boxes = Transpose<perm = [0, 2, 1]>(around) every = Sigmoid(raw) one = Constant<value_ints = [1]>()
    detection_scores = Squeeze(every, one) none = Constant<value_float = 0.0>() empty = Mul(detection_scores, none)
    detection_classes = Add(empty, classes) num_detections = ReduceSum<keepdims = 0>(detection_classes, one)
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    corners = [(y / 4, x / 4, y / 4 + 0.2, x / 4 + 0.4) for y in range(4) for x in range(4)]
    kernel = np.random.default_rng(4).normal(0, 0.15, (5, 3, 8, 8))
    classes = [1 + index % 3 for index in range(16)]
    onnx.save(parse(NETWORK, kernel=kernel, middles=np.array(corners).T, classes=classes), folder / "ssd.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    masktool.export(
        folder / "ssd.onnx", folder / "fill.onnx", masking="fill", baseline="black", class_output="none",
        preprocessing=Preprocessing((SIDE, SIDE), "exact"), labels=["cat", "dog", "bird"],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def filled(folder):
    with masktool.load(folder / "fill.onnx", "cpu", threads=1) as session:
        yield session


def list_source(folder: Path, images: np.ndarray) -> list[list[tuple]]:
    """(y0, x0, y1, x1), score and class of every place of every image, as the source gives them."""
    session = onnxruntime.InferenceSession(folder / "ssd.onnx", providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS[:3]), {"image": images.astype(np.float32)})
    return [list(zip(*(each.tolist() for each in image), strict=True)) for image in zip(*found, strict=True)]


def input_of(folder: Path) -> np.ndarray:
    resized = Image.open(folder / "photo.png").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (np.asarray(resized, np.float32) / 255).transpose(2, 0, 1)[None]


def overlap(a, b) -> float:
    """Intersection over union of (y0, x0, y1, x1), whatever the unit."""
    high, wide = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return high * wide / (sum(areas) - high * wide) if high > 0 and wide > 0 else 0.0


def test_the_box_is_where_its_shares_lie_in_the_picture(folder, filled) -> None:
    found = masktool.explain(filled, folder / "photo.png", "occlusion", "box:0", sliding_window_shapes=16, strides=16)
    (y0, x0, y1, x1), score, label = max(list_source(folder, input_of(folder))[0], key=lambda each: each[1])
    described = found.question.describe()
    assert described["detector"] == "tf-detection"
    assert described["box"] == pytest.approx([x0 * WIDTH, y0 * HEIGHT, x1 * WIDTH, y1 * HEIGHT], rel=1e-4)
    assert described["label"] == ("cat", "dog", "bird")[int(label) - 1]
    assert described["detection score"] == pytest.approx(score, rel=1e-5)


def test_the_similarity_is_that_of_the_sources_boxes(folder, filled) -> None:
    image = input_of(folder)
    masks = (np.random.default_rng(7).random((12, 1, SIDE, SIDE)) < 0.5).astype(np.float32)
    box, _, label = max(list_source(folder, image)[0], key=lambda each: each[1])
    expected = [
        max(overlap(box, other) * score * (label == kind) for other, score, kind in each)
        for each in list_source(folder, image * masks)
    ]
    assert len({round(each, 3) for each in expected}) > 6
    subject = make_subject(read_subject(folder / "photo.png"), filled)
    target = Detection("box:0").fit(filled.output_shapes, (SIDE, SIDE))
    reading = read_scores(filled, subject, [target], None)
    got = target.settle(reading.whole).read(reading.under_masks(image, masks))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_in_front_of_the_suppression_the_raw_outputs_are_read() -> None:
    random = np.random.default_rng(0)
    boxes, scores = random.random((2, 5, 4)), random.random((2, 5, 4))
    shapes = {"raw_detection_boxes": (None, 5, 4), "raw_detection_scores": (None, 5, 4)}
    head = choose_detector(None, shapes, (SIDE, WIDTH))
    values = {"raw_detection_boxes": boxes, "raw_detection_scores": scores}
    found = head.settle(values, (SIDE, WIDTH)).decode(values, (SIDE, WIDTH))
    assert (head.name, head.lists) == ("tf-detection", ())
    y0, x0, y1, x1 = boxes[1, 3]
    assert found.boxes[1, 3].tolist() == pytest.approx([x0 * WIDTH, y0 * SIDE, x1 * WIDTH, y1 * SIDE])
    np.testing.assert_array_equal(found.class_scores, scores[..., 1:])
    both = shapes | {"detection_boxes": (None, 5, 4), "detection_scores": (None, 5), "detection_classes": (None, 5)}
    assert choose_detector(None, both, (SIDE, WIDTH)).labels == "detection_classes"


@pytest.mark.parametrize(
    ("change", "got"),
    [({"detection_boxes": 40.0}, "numbers up to 40, and a class 1"), ({"detection_classes": 0}, "1, and a class 0")],
)
def test_what_is_tensorflows_by_name_alone_is_refused(change, got) -> None:
    values = {
        "detection_boxes": np.ones((1, 2, 4)), "detection_scores": np.ones((1, 2)), "detection_classes": np.ones((1, 2))
    }  # fmt: skip
    head = DETECTORS["tf-detection"](*OUTPUTS[:3])
    assert head.settle(values, (SIDE, SIDE)) is head
    for name, value in change.items():
        values[name][0, 0] = value
    with pytest.raises(MasktoolError, match=rf"TensorFlow's by name alone.*{got}.*boxes\+scores"):
        head.settle(values, (SIDE, SIDE))


def test_boxes_inside_out_are_said_by_name() -> None:
    """Centres and sizes read as corners; only those above the least score count."""
    boxes = np.array([[[20, 20, 4, 4], [30, 9, 5, 12], [1, 1, 9, 9], [9, 9, 1, 1]]], float)
    scores = np.array([[[0.9], [0.8], [0.7], [0.1]]])
    head = choose_detector(None, {"boxes": (None, 4, 4), "scores": (None, 4, 1)}, (SIDE, SIDE))
    found = head.decode({"boxes": boxes, "scores": scores}, (SIDE, SIDE))
    check_corners(found, head, 0.95)
    with pytest.raises(MasktoolError, match=r"not those of a boxes\+scores detector.*got 2 of 3 inside out.*detector"):
        check_corners(found, head, 0.25)
    check_corners(head.decode({"boxes": boxes[:, 1:], "scores": scores[:, 1:]}, (SIDE, SIDE)), head, 0.25)
