"""Whole data sets: folders of images, what is said of them, and everything that does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from masktool.datasets import read_dataset
from masktool.datasets.dataset import Problem
from masktool.errors import MasktoolError

NAMES = ["cat", "dog", "guinea pig"]


def save(path, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three photographs of 40 x 30 pixels."""
    for name in ("a.jpg", "b.jpg", "c.png"):
        save(tmp_path / "photographs" / name)
    return tmp_path / "photographs"


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def whats(dataset):
    return [f"{problem.where}: {problem.what}" for problem in dataset.problems]


def test_a_folder_alone(folder):
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    dataset = read_dataset(folder)
    assert [sample.name for sample in dataset.images] == ["a.jpg", "b.jpg", "c.png"]
    assert dataset.images[0].path == folder / "a.jpg"
    assert {(sample.label, sample.boxes, sample.object_mask, sample.segments) for sample in dataset.images} == {
        (None, (), None, None)
    }
    assert dataset.problems == ()


def test_subfolders_are_classes_by_name_or_index(tmp_path):
    for name in ("dog/1.png", "dog/2.png", "guinea_pig/1.png", "0/1.png", "horse/1.png", "horse/2.png", "7/1.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    dataset = read_dataset(tmp_path, class_names=NAMES)
    assert {sample.name: sample.label for sample in dataset.images} == {
        "0/1.png": 0,
        "7/1.png": None,
        "dog/1.png": 1,
        "dog/2.png": 1,
        "guinea_pig/1.png": 2,
        "horse/1.png": None,
        "horse/2.png": None,
    }
    assert dataset.problems == (
        Problem("7/", 'no such class: expected 0 to 2, got "7"; images left without a label: 1'),
        Problem("horse/", "no class is called 'horse'; images left without a label: 2"),
    )


def test_a_label_file_takes_the_place_of_subfolders(tmp_path):
    save(tmp_path / "set" / "x" / "1.png")
    labels = write(tmp_path / "labels.json", {"x/1.png": "dog"})
    dataset = read_dataset(tmp_path / "set", labels=labels, class_names=NAMES)
    assert dataset.images[0].label == 1
    assert dataset.problems == ()


def test_a_limit_takes_images_of_all_classes(tmp_path):
    for name in ("0/1.png", "0/2.png", "1/1.png", "1/2.png", "2/1.png", "2/2.png"):
        save(tmp_path / name)
    names = [sample.name for sample in read_dataset(tmp_path, limit=3).images]
    assert names == ["0/1.png", "1/1.png", "2/1.png"]
    assert len(read_dataset(tmp_path, limit=99).images) == 6


def test_what_the_limit_leaves_out_is_no_problem(folder, tmp_path):
    labels = write(tmp_path / "labels.json", {"a.jpg": 0, "b.jpg": 99})
    dataset = read_dataset(folder, labels=labels, n_classes=3, limit=1)
    assert [sample.label for sample in dataset.images] == [0]
    assert dataset.problems == ()


def test_problems_are_listed_and_nothing_else_is_lost(folder, tmp_path):
    labels = write(tmp_path / "labels.csv", "a.jpg,cat\nb.jpg,horse\nz.jpg,dog\n")
    boxes = write(
        tmp_path / "boxes.json",
        {
            "a.jpg": {
                "boxes": [
                    [5, 6, 25, 20],
                    [41, 5, 50, 9],
                    [9, 9, 5, 20],
                    [3, 3, 3, 9],
                    [30.5, 20, 40.5, 30],
                    [30, 20, 55, 30],
                    [float("nan"), 1, 2, 3],
                ]
            },
            "b.jpg": [[1, 2, 3, 4]],
            "y.jpg": [],
        },
    )
    dataset = read_dataset(folder, labels=labels, boxes=boxes, class_names=NAMES)
    assert [sample.label for sample in dataset.images] == [0, None, None]
    assert [sample.boxes for sample in dataset.images] == [
        ((5, 6, 25, 20), (30.5, 20, 40, 30), (30, 20, 40, 30)),
        ((1, 2, 3, 4),),
        (),
    ]
    assert whats(dataset) == [
        "labels.csv: z.jpg: no such image in the folder",
        "c.png: no label in labels.csv",
        "labels.csv: b.jpg: no class is called 'horse'",
        "boxes.json: y.jpg: no such image in the folder",
        "c.png: no boxes in boxes.json",
        "boxes.json: a.jpg: box (41, 5, 50, 9) lies outside the image, 40 x 30; not used",
        "boxes.json: a.jpg: box (9, 9, 5, 20) is reversed or empty; not used",
        "boxes.json: a.jpg: box (3, 3, 3, 9) is reversed or empty; not used",
        "boxes.json: a.jpg: box (30, 20, 55, 30) leaves the image, 40 x 30; cut",
        "boxes.json: a.jpg: box (nan, 1, 2, 3) is not finite; not used",
    ]


def test_boxes_of_another_size_are_not_used(folder, tmp_path):
    boxes = write(tmp_path / "boxes.json", {"a": {"boxes": [[1, 2, 3, 4]], "size": [500, 375]}})
    dataset = read_dataset(folder, boxes=boxes, limit=1)
    assert dataset.images[0].boxes == ()
    assert whats(dataset) == ["boxes.json: a.jpg: annotated at 500 x 375, the image has 40 x 30; not used"]


def test_boxes_count_the_right_way_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: stored 40 x 30, seen 30 x 40
    save(tmp_path / "set" / "a.jpg", exif=exif)
    boxes = write(tmp_path / "boxes.json", {"a.jpg": [[2, 30, 28, 39]]})
    dataset = read_dataset(tmp_path / "set", boxes=boxes)
    assert dataset.images[0].boxes == ((2, 30, 28, 39),)
    assert dataset.problems == ()


def test_images_that_do_not_open_are_left_to_whoever_reads_them(folder, tmp_path):
    (folder / "b.jpg").write_bytes(b"no photograph")
    (folder / "d.npy").write_bytes(b"")
    np.save(folder / "e.npy", np.zeros((3, 8, 8), np.float32))
    masks = tmp_path / "masks"
    save(masks / "b.png")
    boxes = write(tmp_path / "boxes.json", {name: [[1, 2, 300, 400]] for name in ("b.jpg", "d.npy", "e.npy")})
    dataset = read_dataset(folder, boxes=boxes, masks=masks)
    samples = {sample.name: sample for sample in dataset.images}
    assert samples["b.jpg"].boxes == samples["d.npy"].boxes == samples["e.npy"].boxes == ((1, 2, 300, 400),)
    assert samples["b.jpg"].object_mask == masks / "b.png"
    assert not any("b.jpg" in line for line in whats(dataset))


def test_thousands_of_foreign_entries_are_summed_up(folder, tmp_path):
    entries = {f"{number:04}.jpg": 0 for number in range(1000)}
    labels = write(tmp_path / "labels.json", entries | {"a.jpg": 1, "b.jpg": 1, "c.png": 1})
    dataset = read_dataset(folder, labels=labels)
    assert len(dataset.problems) == 21
    assert dataset.problems[-1] == Problem("labels.json", "980 more entries for images that are not in the folder")


@pytest.mark.parametrize("missing", ["nowhere", "photographs/a.jpg"])
def test_no_folder_is_an_error(folder, missing):
    with pytest.raises(MasktoolError, match=r"^cannot read the directory \(.*\): (No such file|Not a directory)"):
        read_dataset(folder.parent / missing)


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(MasktoolError, match=r"^no images .*expected files such as .jpg or .png, or subfolders of them"):
        read_dataset(tmp_path)


def test_real_photographs(data_dir):
    names = [name for _, name in json.loads((data_dir / "imagenet_classes.json").read_text())]
    folder = data_dir / "acuity227"
    dataset = read_dataset(
        folder, labels=folder / "labels.json", boxes=folder / "boxes.json", class_names=names, n_classes=len(names)
    )
    expected = json.loads((folder / "boxes.json").read_text())
    assert dataset.problems == ()
    assert len(dataset.images) == len(expected) == 200
    for sample in dataset.images:
        entry = expected[sample.name]
        assert sample.label == entry["index"]
        assert np.abs(np.subtract(sample.boxes, entry["boxes"])).max() <= 1  # some touch the border, rounded


def test_real_photographs_of_which_some_have_no_box(data_dir):
    folder = data_dir / "images"
    dataset = read_dataset(folder, labels=folder / "labels.json", boxes=folder / "boxes.json", n_classes=1000)
    boxed = set(json.loads((folder / "boxes.json").read_text()))
    assert {sample.name for sample in dataset.images if sample.boxes} == boxed
    assert sorted(dataset.problems, key=str) == sorted(
        [Problem(sample.name, "no boxes in boxes.json") for sample in dataset.images if sample.name not in boxed],
        key=str,
    )
    assert 0 < len(dataset.problems) < len(dataset.images)
