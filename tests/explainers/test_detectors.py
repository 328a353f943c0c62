"""Heads of detectors: found from names and shapes, and decoded as their published formulas say, place by place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.explainers.detections import Detections, overlap_with
from masktool.explainers.detector import DETECTORS, choose_detector
from masktool.explainers.detectors.boxes_and_scores import BoxesAndScores
from masktool.explainers.detectors.ssd import COCO, LITE, VOC
from masktool.explainers.subject import make_subject
from masktool.option_names import for_command_line

SIZE = (64, 96)
PLACES = [
    (column, row, stride) for stride in (8, 16, 32) for row in range(64 // stride) for column in range(96 // stride)
]
"""The places of three grids, row by row, written out."""


def numbers(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def decode(name: str, values: dict[str, np.ndarray], size=SIZE) -> Detections:
    """Decodes by the head of a name, as it is settled on the first image."""
    head = choose_detector(name, {key: (None, *each.shape[1:]) for key, each in values.items()}, size)
    return head.settle({key: each[:1] for key, each in values.items()}, size).decode(values, size)


def compare(found: Detections, boxes, classes, objectness, scores) -> None:
    for got, expected in zip(
        (found.boxes, found.class_scores, found.objectness, found.scores),
        (boxes, classes, objectness, scores),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_yolov5() -> None:
    rows = np.concatenate([numbers(2, 9, 4, high=90), numbers(2, 9, 4, seed=1)], axis=2)
    found = decode("yolov5", {"output0": rows})
    boxes = [[corners(*row[:4]) for row in image] for image in rows]
    scores = [[row[4] * max(row[5:]) for row in image] for image in rows]
    compare(found, boxes, rows[..., 5:], rows[..., 4], scores)


def test_one_class_has_no_score_beside_its_objectness_in_yolov5() -> None:
    rows = np.concatenate([numbers(1, 9, 4, high=90), numbers(1, 9, 2, seed=1)], axis=2)
    np.testing.assert_array_equal(decode("yolov5", {"output0": rows}).scores, rows[..., 4])


def test_yolov8_and_the_coefficients_of_masks() -> None:
    columns = np.concatenate([numbers(2, 4, 9, high=90), numbers(2, 3, 9, seed=1)], axis=1)
    boxes = [[corners(*image[:4, place]) for place in range(9)] for image in columns]
    classes = [[image[4:, place] for place in range(9)] for image in columns]
    highest = np.max(classes, axis=2)
    compare(decode("yolov8", {"output0": columns}), boxes, classes, highest, highest)
    segmenting = {
        "output0": np.concatenate([columns, numbers(2, 6, 9, low=-9, high=9)], axis=1),
        "output1": numbers(2, 6, 4, 4),
    }
    compare(decode("yolov8", segmenting), boxes, classes, highest, highest)


def test_yolox_as_its_exporter_leaves_it_and_decoded() -> None:
    rows = np.concatenate([numbers(2, 126, 4, low=-2, high=2), numbers(2, 126, 4, seed=1)], axis=2)
    boxes = [
        [
            corners((x + row[0]) * step, (y + row[1]) * step, math.exp(row[2]) * step, math.exp(row[3]) * step)
            for row, (x, y, step) in zip(image, PLACES, strict=True)
        ]
        for image in rows
    ]
    scores = [[row[4] * max(row[5:]) for row in image] for image in rows]
    compare(decode("yolox", {"output": rows}), boxes, rows[..., 5:], rows[..., 4], scores)
    rows[..., :4] = numbers(2, 126, 4, low=20, high=60)
    assert decode("yolox", {"output": rows}).boxes[0, 5].tolist() == pytest.approx(corners(*rows[0, 5, :4]))


def test_yunet() -> None:
    counts = {8: 96, 16: 24, 32: 6}
    values = {
        f"{part}_{stride}": numbers(2, count, 1, seed=stride + len(part))
        for part in ("cls", "obj")
        for stride, count in counts.items()
    }
    values |= {f"bbox_{stride}": numbers(2, count, 4, low=-1, seed=stride) for stride, count in counts.items()}
    values["cls_8"][0, 0] = 1.2  # cut at 1, as published
    joined = {
        part: np.concatenate([values[f"{part}_{stride}"] for stride in counts], axis=1)
        for part in ("cls", "obj", "bbox")
    }
    boxes = [
        [
            corners((x + row[0]) * step, (y + row[1]) * step, math.exp(row[2]) * step, math.exp(row[3]) * step)
            for row, (x, y, step) in zip(image, PLACES, strict=True)
        ]
        for image in joined["bbox"]
    ]
    scores = np.sqrt(np.minimum(joined["cls"], 1) * joined["obj"])
    compare(decode("yunet", values), boxes, scores, scores[..., 0], scores[..., 0])


def test_blazeface() -> None:
    size = (128, 128)
    logits = [numbers(2, count, 1, low=-200, high=200, seed=count) for count in (512, 384)]
    given = [numbers(2, count, 16, low=0, high=20, seed=count + 1) for count in (512, 384)]
    anchors = [((x + 0.5) * 8, (y + 0.5) * 8) for y in range(16) for x in range(16) for _ in range(2)]
    anchors += [((x + 0.5) * 16, (y + 0.5) * 16) for y in range(8) for x in range(8) for _ in range(6)]
    boxes = [
        [corners(x + row[0], y + row[1], row[2], row[3]) for row, (x, y) in zip(image, anchors, strict=True)]
        for image in np.concatenate(given, axis=1)
    ]
    scores = np.vectorize(sigmoid)(np.clip(np.concatenate(logits, axis=1).astype(np.float64), -100, 100))
    names = ("b", "a", "d", "c")
    found = decode("blazeface", dict(zip(names, (*given, *logits), strict=True)), size)
    compare(found, boxes, scores, scores[..., 0], scores[..., 0])
    joined = {"r": np.concatenate(given, axis=1), "c": np.concatenate(logits, axis=1)}
    np.testing.assert_array_equal(decode("blazeface", joined, size).boxes, found.boxes)


def test_ultraface() -> None:
    scores, boxes = numbers(2, 9, 2), numbers(2, 9, 4)
    found = decode("ultraface", {"scores": scores, "boxes": boxes})
    compare(found, boxes * [96, 64, 96, 64], scores[..., 1:], scores[..., 1], scores[..., 1])


def test_detr_and_rt_detr() -> None:
    logits, shares = numbers(2, 5, 4, low=-3, high=3), numbers(2, 5, 4)
    values = {"logits": logits, "pred_boxes": shares}
    boxes = [
        [corners(row[0] * 96, row[1] * 64, row[2] * 96, row[3] * 64) for row in image] for image in shares.astype(float)
    ]
    softmax = [[[math.exp(each) / sum(map(math.exp, row)) for each in row] for row in image] for image in logits]
    classes = np.array(softmax)[..., :-1]
    compare(decode("detr", values), boxes, classes, 1 - np.array(softmax)[..., -1], classes.max(axis=2))
    alone = np.vectorize(sigmoid)(logits)
    compare(decode("rt-detr", values), boxes, alone, alone.max(axis=2), alone.max(axis=2))
    compare(decode("rt-detr", values | {"logits": alone}), boxes, alone, alone.max(axis=2), alone.max(axis=2))


def test_boxes_and_scores_in_pixels_as_shares_and_across() -> None:
    boxes, scores = numbers(2, 9, 4, high=60), numbers(2, 9, 3)
    highest = scores.max(axis=2)
    compare(decode("boxes+scores", {"boxes": boxes, "scores": scores}), boxes, scores, highest, highest)
    across = {"boxes": boxes / [96, 64, 96, 64], "scores": scores.transpose(0, 2, 1)}
    compare(decode("boxes+scores", across), boxes, scores, highest, highest)
    compare(decode("boxes+scores", {"boxes": boxes[:, :, None], "confs": scores}), boxes, scores, highest, highest)


def test_boxes_with_one_score_and_a_label_each() -> None:
    boxes, scores, labels = numbers(2, 3, 4, high=60), numbers(2, 3), np.array([[2, 0, 1], [1, 1, 0]])
    scores[1, 2] = -1  # a place that is not used
    found = decode("boxes+scores", {"boxes": boxes, "labels": labels, "scores": scores})
    assert found.class_scores[0].tolist() == [[0, 0, scores[0, 0]], [scores[0, 1], 0, 0], [0, scores[0, 2], 0]]
    assert found.scores[1].tolist() == found.objectness[1].tolist() == [scores[1, 0], scores[1, 1], 0]
    one = decode("boxes+scores", {"boxes": boxes, "scores": scores})
    assert one.class_scores.shape == (2, 3, 1)
    with pytest.raises(MasktoolError, match="no indices of classes"):
        decode("boxes+scores", {"boxes": boxes, "labels": labels - 5, "scores": scores})


def test_rows_of_six_and_of_seven_columns() -> None:
    six = np.array([[[1, 2, 30, 40, 0.5, 1], [0, 0, 9, 9, 0.25, 0], [0] * 6]], np.float32)
    found = decode("end2end", {"output0": six})
    compare(found, six[..., :4], [[[0, 0.5], [0.25, 0], [0, 0]]], [[0.5, 0.25, 0]], [[0.5, 0.25, 0]])
    seven = np.concatenate([np.zeros((1, 3, 1)), six[..., :4], six[..., [5]], six[..., [4]]], axis=2)
    again = decode("end2end", {"output": seven})
    compare(again, found.boxes, found.class_scores, found.objectness, found.scores)


def test_a_default_box_of_ssd_by_hand() -> None:
    """The first place of the first grid: a centre at .5 / 37.5, sides of .07 and of the mean of .07 and .15."""
    scores, offsets = np.zeros((1, 8732, 81), np.float32), np.zeros((1, 8732, 4), np.float32)
    scores[0, :, 0], offsets[0, 3] = 1, [1, -2, 0.5, 1]
    found = decode("ssd", {"loc": offsets, "conf": scores}, (300, 300))
    centre = 0.5 / 37.5 * 300
    geometric = math.sqrt(0.07 * 0.15) * 300
    wide, high = 0.07 * 300 * math.sqrt(2), 0.07 * 300 / math.sqrt(2)
    assert found.boxes[0, 1].tolist() == pytest.approx(corners(centre, centre, geometric, geometric))
    assert found.boxes[0, 2].tolist() == pytest.approx(corners(centre, centre, wide, high))
    moved = corners(centre + 0.1 * high, centre - 0.2 * wide, high * math.exp(0.1), wide * math.exp(0.2))
    assert found.boxes[0, 3].tolist() == pytest.approx(moved)
    assert COCO.boxes == VOC.boxes == 8732
    assert LITE.boxes == 3234
    assert decode("ssd", {"loc": offsets, "conf": scores[..., :21]}, (300, 300)).boxes[0, 0, 2] == pytest.approx(
        centre + 15
    )


def test_an_anchor_of_retinanet_by_hand() -> None:
    count = 9 * sum((64 // stride) ** 2 for stride in (8, 16, 32, 64)) + 9
    logits, offsets = numbers(1, count, 3, low=-4, high=4), np.zeros((1, count, 4), np.float32)
    offsets[0, 9] = [0.5, 0, math.log(2), 0]
    found = decode("retinanet", {"cls_logits": logits, "bbox_regression": offsets}, (64, 64))
    width, height = 2 * round(32 * math.sqrt(2) / 2), 2 * round(32 / math.sqrt(2) / 2)
    assert found.boxes[0, 0].tolist() == [-width / 2, -height / 2, width / 2, height / 2]
    assert found.boxes[0, 9].tolist() == pytest.approx(corners(8 + width / 2, 0, 2 * width, height))
    np.testing.assert_allclose(found.class_scores, np.vectorize(sigmoid)(logits), rtol=1e-5)


@pytest.mark.slow
def test_ssd_and_retinanet_decode_as_torchvision_does(torchvision_models) -> None:
    """Its own anchors, coders and softmax, on random outputs."""
    torch = pytest.importorskip("torch")
    detection = torchvision_models.detection
    sets = {"ssd": (300, 300, 8732, 91), "ssdlite": (320, 320, 3234, 91), "retinanet": (256, 320, 0, 91)}
    for kind, (height, width, count, columns) in sets.items():
        images = detection.image_list.ImageList(torch.zeros(1, 3, height, width), [(height, width)])
        coder = detection._utils.BoxCoder((1.0, 1.0, 1.0, 1.0) if kind == "retinanet" else (10.0, 10.0, 5.0, 5.0))
        if kind == "retinanet":
            strides = (8, 16, 32, 64, 128)
            maps = [torch.zeros(1, 1, -(-height // stride), -(-width // stride)) for stride in strides]
            (anchors,) = detection.retinanet._default_anchorgen()(images, maps)
        else:
            sides, usual = ((38, 19, 10, 5, 3, 1), True) if kind == "ssd" else ((20, 10, 5, 3, 2, 1), False)
            generator = detection.anchor_utils.DefaultBoxGenerator
            made = (
                generator(
                    [[2], [2, 3], [2, 3], [2, 3], [2], [2]], scales=list(COCO.scales), steps=[8, 16, 32, 64, 100, 300]
                )
                if usual
                else generator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
            )
            (anchors,) = made(images, [torch.zeros(1, 1, side, side) for side in sides])
        assert count in (0, len(anchors))
        offsets = numbers(1, len(anchors), 4, low=-3, high=3)
        logits = numbers(1, len(anchors), columns, low=-4, high=4, seed=2)
        expected = coder.decode_single(torch.tensor(offsets[0]), anchors)
        name = "retinanet" if kind == "retinanet" else "ssd"
        found = decode(name, {"scores": logits, "boxes": offsets}, (height, width))
        np.testing.assert_allclose(found.boxes[0], expected.numpy(), rtol=1e-4, atol=2e-3)
        shares = torch.tensor(logits[0])
        wanted = shares.sigmoid() if name == "retinanet" else shares.softmax(1)[:, 1:]
        np.testing.assert_allclose(found.class_scores[0], wanted.numpy(), rtol=1e-4, atol=1e-6)


FOUND = {
    "yolov5": ({"output0": (None, 25200, 85), "raw": (None, 3, 80, 80, 85)}, (640, 640)),
    "yolov8": ({"output0": (None, 84, 8400)}, (640, 640)),
    "yolox": ({"output": (None, 3549, 85)}, (416, 416)),
    "ultraface": ({"scores": (None, 4420, 2), "boxes": (None, 4420, 4)}, (240, 320)),
    "ssd": ({"scores": (None, 8732, 81), "boxes": (None, 8732, 4)}, (300, 300)),
    "retinanet": ({"cls_logits": (None, 12276, 91), "bbox_regression": (None, 12276, 4)}, (256, 256)),
    "detr": ({"logits": (None, 100, 92), "pred_boxes": (None, 100, 4)}, (800, 800)),
    "rt-detr": ({"dets": (None, 300, 4), "labels": (None, 300, 91)}, (560, 560)),
    "end2end": ({"output0": (None, 300, 6)}, (640, 640)),
    "boxes+scores": ({"boxes": (None, None, 4), "labels": (None, None), "scores": (None, None)}, (640, 640)),
    "tf-detection": (
        {
            "detection_boxes:0": (1, 100, 4),
            "detection_classes:0": (1, 100),
            "detection_scores:0": (1, 100),
            "num_detections:0": (1,),
        },
        (300, 300),
    ),
    "blazeface": ({"a": (None, 896, 16), "b": (None, 896, 1)}, (128, 128)),
    "yunet": (
        {f"{part}_{stride}": (None, 9, 4) for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)},
        (24, 24),
    ),
}


def test_every_kind_is_found_where_names_and_shapes_leave_no_doubt() -> None:
    assert FOUND.keys() == DETECTORS.keys()
    for name, (shapes, size) in FOUND.items():
        assert choose_detector(None, shapes, size).name == name


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        (None, {"output": (None, 84, None)}, "which kind of detector"),
        (None, {"logits": (None, 1000)}, "no detector that is known"),
        (None, {"output": (None, 77, 85)}, "--detector yolov5|yolov8|yolox"),
        ("detr", {"output": (None, 84, 8400)}, "no outputs of a detr detector"),
        ("yolov9", {"output": (None, 84, 8400)}, "unknown detector"),
    ],
)
def test_in_doubt_nothing_is_guessed(name, shapes, message) -> None:
    with pytest.raises(MasktoolError) as caught:
        choose_detector(name, shapes, SIZE)
    assert message in for_command_line(caught.value.message)


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [4, 4, 4, 9], [9, 9, 1, 1]])
    assert overlap_with(boxes, (0, 0, 10, 10)).tolist() == pytest.approx([1, 1 / 3, 0, 0, 0])


def test_one_detection_stands_for_overlapping_ones_of_its_class() -> None:
    boxes = np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 10, 10], [40, 0, 50, 10], [60, 0, 70, 10]]], float)
    classes = np.array([[[0.8, 0.1], [0.9, 0.1], [0.1, 0.7], [0.3, 0.2], [0.2, 0.1]]])
    assert Detections.of_classes(boxes, classes).best(0.25) == [1, 2, 3]


def test_the_head_of_lists_takes_lists() -> None:
    head = BoxesAndScores("boxes", "scores", "labels")
    assert head.lists == ("boxes", "scores", "labels")


REAL = {
    "ultraface_rfb320": Preprocessing((240, 320), "exact", scale=1 / 128, mean=(127 / 128,) * 3),
    "yunet_s_320": Preprocessing((320, 320), "exact", scale=1.0, channel_order="BGR"),
    "blazeface_front_nhwc": Preprocessing((128, 128), "exact", scale=1 / 127.5, mean=(1.0,) * 3, layout="NHWC"),
}


@pytest.mark.slow
def test_three_networks_of_others_find_the_same_face(data_dir: Path, tmp_path: Path) -> None:
    photograph = Image.open(data_dir / "acuity227/ILSVRC2012_val_00040473.JPEG").convert("RGB")
    boxes = []
    for name, preprocessing in REAL.items():
        path = tmp_path / f"{name}.onnx"
        masktool.export(data_dir / f"onnx/{name}.onnx", path, preprocessing=preprocessing, class_output="none")
        with masktool.load(path, "cpu") as session:
            subject = make_subject(photograph, session)
            found = masktool.explain(
                session, subject.original, "occlusion", "box:0", sliding_window_shapes=75, strides=75
            )
        boxes.append(found.question.describe()["box"])
        assert found.question.describe()["detector"] == name.split("_")[0]
    for box in boxes[1:]:
        assert overlap_with(np.array(box), tuple(boxes[0])) > 0.4
