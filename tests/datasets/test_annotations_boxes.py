"""Boxes from our own JSON and from Pascal VOC, and which objects count."""

from __future__ import annotations

import json
import math
import sys

import pytest
from PIL import Image

from masktool.datasets import read_dataset
from masktool.datasets.classes import Classes
from masktool.datasets.fitting import fit_box
from masktool.datasets.formats import read_objects
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject, choose_objects
from masktool.datasets.voc import read_voc
from masktool.errors import MasktoolError

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BILLION_LAUGHS = f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]><annotation><filename>&l9;</filename></annotation>'


def voc_object(name, box, extra=""):
    edges = "".join(
        f"<{edge}>{value:g}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{edges}</bndbox></object>"


def voc(objects, filename="a.jpg", size=(500, 375)):
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{sides}{''.join(objects)}</annotation>"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refused(path):
    with pytest.raises(MasktoolError) as caught:
        read_objects(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_voc_counts_pixels_from_one(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>12</xmax><ymax>12</ymax></bndbox></part>"
    text = voc(
        [
            voc_object("dog", (123, 115, 379, 275), f"<difficult>0</difficult>{part}"),
            voc_object("chair", (1, 1, 500, 375)),
            voc_object("bird", (45.5, 2, 60.25, 3), "<difficult> 1 </difficult>"),
        ]
    )
    assert read_voc(write(tmp_path / "a.xml", text)) == AnnotatedImage(
        "a.jpg",
        (AnnotatedObject((122, 114, 379, 275), "dog"), AnnotatedObject((0, 0, 500, 375), "chair")),
        (500, 375),
        n_ignored=1,
    )


def test_voc_without_a_file_name_and_size(tmp_path):
    text = voc([voc_object("dog", (1, 1, 2, 2))], filename="", size=None)
    found = read_voc(write(tmp_path / "photo.xml", text))
    assert (found.name, found.size) == ("photo", None)
    assert read_voc(write(tmp_path / "photo.xml", voc([], size=(0, 0)))).size is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object></annotation>", "not XML (FILE, line 1, column 22): mismatched tag"),
        ("<html></html>", "not Pascal VOC XML (FILE): expected <annotation>, got <html>"),
        ("<annotation><object/></annotation>", "no <bndbox> (FILE, object 1): expected xmin, ymin, xmax, ymax"),
        (
            "<annotation><object><bndbox><xmin>one</xmin></bndbox></object></annotation>",
            "no <xmin> (FILE, object 1): expected a number of pixels, got 'one'",
        ),
        (
            "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "no <ymin> (FILE, object 1): expected a number of pixels, got nothing",
        ),
        (
            "<annotation><size><width>5</width></size></annotation>",
            "no <height> (FILE, size): expected a number of pixels, got nothing",
        ),
        (BILLION_LAUGHS, "XML that defines entities (FILE): expected plain Pascal VOC XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "XML that cannot be read (FILE)"),
        ("   ", "not XML (FILE, line 1, column 3): no element found"),
        ("", "empty file (FILE)"),
    ],
)
def test_xml_that_is_no_voc(tmp_path, text, message):
    assert refused(write(tmp_path / "a.xml", text)).startswith(message)


def test_voc_needs_defusedxml(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    assert "pip install 'masktool[evaluate]'" in refused(write(tmp_path / "a.xml", voc([])))


def test_a_folder_without_voc(tmp_path):
    assert refused(tmp_path) == "no boxes (FILE): expected Pascal VOC XML files, NAME.xml"


def test_voc_is_told_by_its_content(tmp_path):
    path = write(tmp_path / "boxes", f'\ufeff<?xml version="1.0"?>\n{voc([])}')
    assert read_objects(path) == [AnnotatedImage("a.jpg", (), (500, 375))]


def test_our_json(tmp_path):
    text = '{"a": {"boxes": [[1, 2, 3, 4.5]], "size": [9, 8], "index": 3}, "b": [[0, 0, 1, 1]], "c": {"boxes": []}}'
    assert read_objects(write(tmp_path / "boxes.json", text)) == [
        AnnotatedImage("a", (AnnotatedObject((1, 2, 3, 4.5)),), (9, 8)),
        AnnotatedImage("b", (AnnotatedObject((0, 0, 1, 1)),)),
        AnnotatedImage("c", ()),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON (FILE, line 1, column 2): expected boxes, as our JSON, COCO JSON or Pascal VOC XML"),
        ("[[1, 2, 3, 4]]", 'not boxes (FILE): expected {file: {"boxes": [[x0, y0, x1, y1], ...]}}, got a JSON list'),
        ('{"a": 3}', 'not boxes (FILE, entry "a"): expected a list of [x0, y0, x1, y1], got 3'),
        ('{"a": {"box": [1, 2, 3, 4]}}', "no 'boxes' (FILE, entry \"a\"): expected a list of [x0, y0, x1, y1]"),
        ('{"a": {"boxes": 5}}', "wrong 'boxes' (FILE, entry \"a\"): expected a list of [x0, y0, x1, y1], got 5"),
        ('{"a": [1, 2, 3, 4]}', 'not 4 numbers (FILE, entry "a", box 0): expected [x0, y0, x1, y1], got 1'),
        ('{"a": [[1, 2, 3]]}', 'not 4 numbers (FILE, entry "a", box 0): expected [x0, y0, x1, y1], got [1, 2, 3]'),
        ('{"a": [[1, 2, 3, "4"]]}', 'not 4 numbers (FILE, entry "a", box 0)'),
        ('{"a": [[1, 2, 3, true]]}', 'not 4 numbers (FILE, entry "a", box 0)'),
        ('{"a": [[1, 2, 3, 1' + "0" * 400 + "]]}", 'not 4 numbers (FILE, entry "a", box 0)'),
        ('{"a": {"boxes": [], "size": 5}}', 'not 2 numbers (FILE, entry "a"): expected "size" as [width, height]'),
        ('"' + "x" * 500 + '"', "not boxes (FILE)"),
    ],
)
def test_json_that_is_not_ours(tmp_path, text, message):
    found = refused(write(tmp_path / "boxes.json", text))
    assert found.startswith(message)
    assert len(found) < 200


@pytest.mark.parametrize(
    ("box", "expected", "remark"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), None),
        ((0, 0, 40, 30), (0, 0, 40, 30), None),
        ((-1, -0.5, 41, 30.5), (0, 0, 40, 30), None),
        ((-1.5, 0, 40, 30), (0, 0, 40, 30), "leaves the image"),
        ((-5, 3, 0, 9), None, "lies outside"),
        ((3, 30, 9, 35), None, "lies outside"),
        ((9, 3, 3, 9), None, "reversed or empty"),
        ((3, 9, 9, 9), None, "reversed or empty"),
        ((3, 9, math.inf, 10), None, "not finite"),
    ],
)
def test_a_box_is_cut_at_the_borders(box, expected, remark):
    found, said = fit_box(box, (40, 30))
    assert found == expected
    assert (said is None) if remark is None else (remark in said)


DOG, CAT, HORSE = (AnnotatedObject((n, 0, n + 1, 1), name) for n, name in enumerate(("dog", "cat", "horse")))
NAMELESS = AnnotatedObject((5, 0, 6, 1))


@pytest.mark.parametrize(
    ("objects", "label", "expected", "remark"),
    [
        ((DOG, CAT, DOG), 1, (DOG, DOG), None),
        ((DOG, HORSE), 1, (DOG,), None),
        ((CAT, HORSE), 1, (), "no object of the image's class 1, only cat, horse"),
        ((HORSE,), 1, (HORSE,), None),
        ((HORSE, AnnotatedObject((0, 0, 1, 1), "cow")), 1, None, "none is called like a class of the model"),
        ((DOG, CAT), None, None, "objects of several classes (dog, cat) all count: the image has no label"),
        ((DOG, DOG), None, (DOG, DOG), None),
        ((NAMELESS, NAMELESS), 0, (NAMELESS, NAMELESS), None),
        ((), 0, (), "no object"),
    ],
)
def test_which_objects_count(objects, label, expected, remark):
    found, said = choose_objects(AnnotatedImage("a", objects), label, Classes(["cat", "dog"], None))
    assert found == (objects if expected is None else expected)
    assert (said is None) if remark is None else (remark in said)


def test_objects_that_were_ignored_are_told_of():
    found = choose_objects(AnnotatedImage("a", (), n_ignored=2), 0, Classes(None, None))
    assert found == ((), "no object; 2 marked as difficult or crowd")


def test_a_class_that_shares_its_name_with_another_has_its_objects():
    crane = AnnotatedObject((0, 0, 1, 1), "crane")
    classes = Classes(["crane", "dog", "crane"], None)
    assert choose_objects(AnnotatedImage("a", (crane, DOG)), 2, classes) == ((crane,), None)


def test_real_voc(data_dir, tmp_path):
    folder = data_dir / "voc"
    images = json.loads((folder / "voc.json").read_text())["images"]
    annotations = tmp_path / "Annotations"
    annotations.mkdir()
    for name, image in images.items():
        objects = [voc_object(each["name"], each["box"]) for each in image["objects"]]
        write(annotations / f"{name.removesuffix('.jpg')}.xml", voc(objects, name, image["size"]))
    classes = sorted({each["name"] for image in images.values() for each in image["objects"]})
    labels = write(tmp_path / "labels.csv", "".join(f"{name},{image['target']}\n" for name, image in images.items()))
    dataset = read_dataset(folder, labels=labels, boxes=annotations, class_names=classes)
    assert dataset.problems == ()
    assert len(dataset.images) == 12
    for sample in dataset.images:
        image = images[sample.name]
        assert classes[sample.label] == image["target"]
        objects = [each["box"] for each in image["objects"] if each["name"] == image["target"]]
        assert list(sample.boxes) == [(x0 - 1, y0 - 1, x1, y1) for x0, y0, x1, y1 in objects]
    assert {sample.name: sample.boxes for sample in dataset.images}["2007_000063.jpg"] == ((122, 114, 379, 275),)

    without_labels = read_dataset(folder, boxes=annotations, class_names=classes)
    several = {name for name, image in images.items() if len({each["name"] for each in image["objects"]}) > 1}
    assert {problem.where for problem in without_labels.problems} == {f"Annotations: {name}" for name in several}
    assert [len(sample.boxes) for sample in without_labels.images] == [
        len(images[sample.name]["objects"]) for sample in without_labels.images
    ]


def test_one_voc_file(tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.new("RGB", (500, 375)).save(photographs / "a.jpg")
    path = write(tmp_path / "a.xml", voc([voc_object("dog", (1, 1, 500, 375))]))
    dataset = read_dataset(photographs, boxes=path)
    assert dataset.images[0].boxes == ((0, 0, 500, 375),)
    assert dataset.problems == ()
