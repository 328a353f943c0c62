"""Boxes and exact masks from COCO, against pycocotools and pixels counted by hand."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import masktool
from masktool.datasets import read_dataset
from masktool.datasets.formats import read_objects
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject
from masktool.datasets.run_lengths import RunLengthMask, expand_counts, merge_segmentations
from masktool.demo import model_path, shapes
from masktool.errors import MasktoolError
from masktool.evaluation.scene import read_scene

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")

WIDTH, HEIGHT = 6, 5
SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]
"""Pixels (1..2, 1..2)."""
COLUMN = {"size": [HEIGHT, WIDTH], "counts": [22, 3, 5]}
"""Run lengths go down the columns: 22 = 4 columns of 5 and 2, so pixels 2..4 of column 4."""
DRAWN = """
......
.##...
.##.#.
....#.
....#.
"""


def pixels_of(drawing):
    return np.array([[pixel == "#" for pixel in row] for row in drawing.split()])


def run_lengths(mask):
    """Counts runs of a mask by hand, zeros first, down the columns; compressed by nobody."""
    flat = np.concatenate([[0], np.asarray(mask, np.int8).ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], changes, [flat.size - 1]])).tolist()


def compress(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def document(annotations, images=None, categories=({"id": 1, "name": "cat"}, {"id": 9, "name": "dog"})):
    images = images or [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def annotation(bbox=(1, 1, 2, 2), category_id=9, **more):
    return {"id": 1, "image_id": 7, "bbox": list(bbox), "category_id": category_id, "iscrowd": 0, **more}


def write(tmp_path, content):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def read(tmp_path):
    """Reads a COCO document about one image of 6 x 5 pixels, of class dog."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("a.png,dog\n")

    def read_document(content):
        return read_dataset(folder, labels=labels, boxes=write(tmp_path, content), class_names=["cat", "dog"])

    return read_document


def test_boxes_are_corners_and_crowds_are_left_out(tmp_path):
    path = write(tmp_path, document([annotation((1, 2, 3, 2.5)), annotation(iscrowd=1), annotation(category_id=1)]))
    assert read_objects(path) == [
        AnnotatedImage(
            "a.png", (AnnotatedObject((1, 2, 4, 4.5), "dog"), AnnotatedObject((1, 1, 3, 3), "cat")), (6, 5), 1
        )
    ]


def test_the_masks_of_the_class_are_united(read):
    cat = annotation(category_id=1, segmentation=[[0, 0, 6, 0, 6, 5, 0, 5]])
    dataset = read(document([annotation(segmentation=SQUARE), cat, annotation((4, 2, 1, 3), segmentation=COLUMN)]))
    assert dataset.problems == ()
    sample = dataset.images[0]
    assert sample.boxes == ((1, 1, 3, 3), (4, 2, 5, 5))
    mask = np.asarray(sample.object_mask)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, pixels_of(DRAWN))


def test_masks_agree_with_the_coco_api(tmp_path, capsys):
    random = np.random.default_rng(0)
    width, height = 37, 23
    blob = np.zeros((height, width), bool)
    blob[4:15, 8:21] = random.random((11, 13)) < 0.7
    segmentations = [
        [random.uniform(0, 23, 10).tolist(), [2.5, 3.5, 30.2, 4.1, 18.7, 20.9]],
        {"size": [height, width], "counts": run_lengths(blob)},
        compress(np.roll(blob, 5, axis=1)),
    ]
    annotations = [
        {"id": n, "image_id": n, "bbox": [1, 1, 20, 20], "category_id": 1, "iscrowd": 0, "segmentation": each}
        for n, each in enumerate(segmentations)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "width": width, "height": height} for n in range(len(segmentations))]
    folder = tmp_path / "photographs"
    folder.mkdir()
    for image in images:
        Image.new("RGB", (width, height)).save(folder / image["file_name"])
    path = write(tmp_path, document(annotations, images))
    capsys.readouterr()
    dataset = read_dataset(folder, boxes=path)
    assert capsys.readouterr() == ("", "")
    assert dataset.problems == ()
    api = COCO(path)
    for sample, each in zip(dataset.images, annotations, strict=True):
        expected = api.annToMask(each)
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(np.asarray(sample.object_mask), expected)
    np.testing.assert_array_equal(np.asarray(dataset.images[1].object_mask), blob)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 411)])
def test_compressed_counts_are_read_as_pycocotools_writes_them(share, shape):
    mask = np.random.default_rng(1).random(shape) < share
    assert expand_counts(compress(mask)["counts"]) == run_lengths(mask)


def test_a_mask_decodes_to_any_type():
    mask = merge_segmentations([SQUARE], (WIDTH, HEIGHT))
    assert np.asarray(mask).sum() == np.asarray(mask, np.float32).sum() == 4
    assert np.asarray(mask, np.float32).dtype == np.float32
    assert mask.size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 3, 3]], "not a polygon: expected [x0, y0, x1, y1, x2, y2, ...], got [1, 1, 3, 3]"),
        ([[1, 1, 3, 3, 2, 2, 9]], "not a polygon"),
        ([[1, 1, 3, 3, 2, float("nan")]], "not a polygon"),
        ([[1, 1, 3, 3, 2, "x"]], "not 6 numbers (polygon): expected [x0, y0, x1, y1, x2, y2, ...], got"),
        ([[1, 1, 3, 3, 2, 10**400]], "not 6 numbers (polygon)"),
        ([[1, 1, 1e12, 3, 2, 2]], "a polygon far outside the image: 1 to 1e+12 of 6"),
        ([[1, -6, 2, 3, 2, 2]], "a polygon far outside the image: -6 to 3 of 5"),
        ([1, 1, 3, 3, 2, 2], "not a polygon"),
        ([[1, 1, 1, 1, 1, 1]], "a segmentation that covers no pixel"),
        ({"size": [5, 6], "counts": [30]}, "a segmentation that covers no pixel"),
        ({"size": [5, 6], "counts": [22, 3, 4]}, "run lengths that do not fill the mask: expected 30 pixels, got 29"),
        ({"size": [5, 6], "counts": [22, 3, 5000]}, "run lengths that do not fill the mask"),
        ({"size": [5, 6], "counts": [22, -3, 11]}, "not run lengths: expected whole numbers, got [22, -3, 11]"),
        ({"size": [5, 6], "counts": [22.5, 7.5]}, "not run lengths"),
        ({"size": [5, 6], "counts": ""}, "run lengths that do not fill the mask: expected 30 pixels, got 0"),
        ({"size": [5, 6], "counts": "PPPP"}, 'not compressed run lengths: "PPPP"'),
        ({"size": [5, 6], "counts": "\u00ff"}, "not compressed run lengths"),
        ({"size": [6, 5], "counts": [30]}, "run lengths of another size: expected [height, width] [5, 6], got [6, 5]"),
        ({"size": [5, 6]}, "not a segmentation: expected polygons or run lengths"),
        ("rle", "not a segmentation"),
    ],
)
def test_a_segmentation_that_is_none_leaves_the_boxes(read, segmentation, message):
    dataset = read(document([annotation(segmentation=segmentation)]))
    sample = dataset.images[0]
    assert (sample.boxes, sample.object_mask) == (((1, 1, 3, 3),), None)
    (problem,) = dataset.problems
    assert problem.where == "coco.json: a.png"
    assert problem.what.startswith(message)
    assert problem.what.endswith("; the boxes stand for the object")


@pytest.mark.parametrize("segmentation", [None, []])
def test_objects_without_a_segmentation_leave_the_boxes(read, segmentation):
    objects = [annotation(segmentation=SQUARE), annotation((4, 2, 1, 3), segmentation=segmentation)]
    dataset = read(document(objects))
    assert (len(dataset.images[0].boxes), dataset.images[0].object_mask) == (2, None)
    assert dataset.problems == ()


def test_an_object_outside_the_image_takes_its_mask_along(read):
    far = annotation((20, 20, 3, 3), segmentation=COLUMN)
    dataset = read(document([annotation(segmentation=SQUARE), far]))
    assert np.asarray(dataset.images[0].object_mask).sum() == 4
    assert [problem.what for problem in dataset.problems] == [
        "box (20, 20, 23, 23) lies outside the image, 6 x 5; not used"
    ]


def test_annotations_of_another_size_or_no_image(read):
    images = [{"id": 7, "file_name": "a.png", "width": HEIGHT, "height": WIDTH}]
    dataset = read(document([annotation(), {**annotation(), "image_id": 8}], images))
    assert dataset.images[0].boxes == ()
    assert [f"{problem.where}: {problem.what}" for problem in dataset.problems] == [
        "coco.json: image_id 8: no such image in the folder",
        "coco.json: a.png: annotated at 5 x 6, the image has 6 x 5; not used",
    ]


def without(entry, key):
    return {name: value for name, value in entry.items() if name != key}


IMAGE = {"id": 7, "file_name": "a.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without(document([]), "annotations"), "no 'annotations' (FILE): expected a list"),
        (without(document([]), "images"), "no 'images' (FILE): expected a list"),
        (document([]) | {"categories": 3}, "wrong 'categories' (FILE): expected a list, got 3"),
        (document([], categories=[{"id": 1}]), "no 'name' (FILE, category 0): expected a text"),
        (document([without(annotation(), "image_id")]), "no 'image_id' (FILE, annotation 0)"),
        (document([annotation(), without(annotation(), "bbox")]), "no 'bbox' (FILE, annotation 1): expected [x, y,"),
        (document([annotation((1, 2, 3))]), "not 4 numbers (FILE, annotation 0): expected bbox [x, y, width, height]"),
        (document([without(annotation(), "category_id")]), "no 'category_id' (FILE, annotation 0)"),
        (document([annotation(category_id=5)]), "no such category (FILE, annotation 0): 5"),
        (document([7]), "not an object (FILE, annotation 0): expected 'image_id', the id of an image, got 7"),
        (document([], [without(IMAGE, "id")]), "no 'id' (FILE, image 0)"),
        (document([], [without(IMAGE, "file_name")]), "no 'file_name' (FILE, image 0): expected a file"),
        (document([], [IMAGE | {"width": "5", "height": 6}]), "not 2 numbers (FILE, image 0): expected width and"),
        (document([], [IMAGE | {"id": True}]), "wrong 'id' (FILE, image 0): expected a number, got true"),
    ],
)
def test_a_file_that_lacks_something(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(MasktoolError) as caught:
        read_objects(path)
    assert str(caught.value).replace(str(path), "FILE").startswith(message)


def test_without_categories_objects_are_of_the_images_class(tmp_path):
    path = write(tmp_path, without(document([without(annotation(), "category_id")]), "categories"))
    assert read_objects(path)[0].objects == (AnnotatedObject((1, 1, 3, 3)),)


def test_segmentations_need_pycocotools_and_boxes_do_not(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert read(document([annotation()])).images[0].boxes == ((1, 1, 3, 3),)
    with pytest.raises(MasktoolError, match=r"reading COCO segmentations needs pycocotools.*masktool\[evaluate\]"):
        read(document([annotation(segmentation=SQUARE)]))


def test_exact_objects_reach_the_models_input(tmp_path):
    drawn = shapes.draw(3, 4)
    folder = tmp_path / "photographs"
    folder.mkdir()
    images, annotations = [], []
    for number, (pixels, label, mask) in enumerate(zip(*drawn, strict=True)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": shapes.SIZE, "height": shapes.SIZE})
        box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, np.uint8))).tolist()
        annotations.append(annotation(box, int(label), image_id=number, segmentation=compress(mask)))
    categories = [{"id": index, "name": name} for index, name in enumerate(shapes.LABELS)]
    dataset = read_dataset(
        folder, boxes=write(tmp_path, document(annotations, images, categories)), class_names=shapes.LABELS
    )
    assert dataset.problems == ()
    assert all(isinstance(sample.object_mask, RunLengthMask) for sample in dataset.images)
    with masktool.load(model_path()) as session:
        for sample, mask in zip(dataset.images, drawn.object_masks, strict=True):
            scene = read_scene(sample, session)
            np.testing.assert_array_equal(scene.inside, mask)
            rows, columns = np.nonzero(mask)
            assert scene.boxes == ((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1),)
