"""Which image an entry is about."""

from __future__ import annotations

import pytest

from masktool.datasets.classes import Classes
from masktool.datasets.images import spread_evenly
from masktool.datasets.matching import ImageNames, match_entries
from masktool.errors import MasktoolError

IMAGES = ("cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/d.v1.png", "e.jpg", "e.png")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("cat/a.jpg", ("cat/a.jpg",)),
        ("./cat/a.jpg", ("cat/a.jpg",)),
        ("cat\\a.jpg", ("cat/a.jpg",)),
        ("b.jpg", ("cat/b.jpg",)),
        ("a.jpg", ("cat/a.jpg", "dog/a.jpg")),
        ("/home/me/val/dog/a.jpg", ("dog/a.jpg",)),
        ("bird/a.jpg", None),
        ("b", ("cat/b.jpg",)),
        ("b.png", ("cat/b.jpg",)),
        ("b.txt", None),
        ("d.v1", ("dog/d.v1.png",)),
        ("d", None),
        ("e.jpg", ("e.jpg",)),
        ("val/e.png", ("e.png",)),
        ("e.bmp", ("e.jpg", "e.png")),
        ("", None),
    ],
)
def test_an_entry_finds_its_image(entry, expected):
    match = ImageNames(IMAGES).find(entry)
    assert (None if match is None else match.names) == expected


def match(entries, names=("a.jpg", "b.jpg", "c.jpg")):
    return match_entries(entries, ImageNames(names), names, "list.csv", "label")


def test_the_closest_entry_counts():
    found, problems = match([("a.png", 1), ("a.jpg", 2), ("train/a.jpg", 3), ("b.jpg", 4), ("c.jpg", 5)])
    assert found == {"a.jpg": 2, "b.jpg": 4, "c.jpg": 5}
    assert [(each.where, each.what) for each in problems] == [
        ("list.csv: a.png", "no such image in the folder"),
        ("list.csv: train/a.jpg", "no such image in the folder"),
    ]


def test_entries_that_differ_are_not_used_and_those_that_agree_are():
    found, problems = match([("val/a.jpg", 1), ("train/a.jpg", 2), ("b.jpg", 4), ("b.jpg", 4), ("c.jpg", 5)])
    assert found == {"b.jpg": 4, "c.jpg": 5}
    assert [(each.where, each.what) for each in problems] == [
        ("list.csv: a.jpg", "2 entries that differ (val/a.jpg, train/a.jpg); none is used")
    ]


def test_an_entry_that_may_be_several_images_is_a_problem():
    found, problems = match([("a.jpg", 1)], ("x/a.jpg", "y/a.jpg"))
    assert found == {}
    assert [(each.where, each.what) for each in problems] == [
        ("list.csv: a.jpg", "may be x/a.jpg or y/a.jpg"),
        ("x/a.jpg", "no label in list.csv"),
        ("y/a.jpg", "no label in list.csv"),
    ]


@pytest.mark.parametrize(
    ("label", "expected"),
    [(0, 0), ("3", 3), (" 1 ", 1), ("cat", 0), ("Cat", 4), ("CAT ", None), ("guinea_pig", 2), ("12", None)],
)
def test_a_label_is_an_index_or_a_name(label, expected):
    classes = Classes(["cat", "12", "guinea pig", "crane", "Cat", "crane"], None)
    if expected is not None:
        assert classes.resolve(label) == expected
    else:
        with pytest.raises(MasktoolError, match=r"classes 0, 4 are called 'CAT'|expected 0 to 5, got \"12\""):
            classes.resolve(label)


@pytest.mark.parametrize(
    ("names", "count", "label", "message"),
    [
        (["a"], None, "b", "no class is called 'b'"),
        (["a", "a"], None, "a", "classes 0, 1 are called 'a'"),
        (["a"], 1, 1, "no such class: expected 0 to 0, got 1"),
        (None, 10, "10", 'no such class: expected 0 to 9, got "10"'),
        (None, None, -1, "no such class: expected 0 or more, got -1"),
        (None, 10, "a", "the model's classes have no names: expected an index, got 'a'"),
        (["a"], None, True, "not a label: expected an index or a class name, got true"),
        (["a"], None, 1.5, "not a label: expected an index or a class name, got 1.5"),
        (["a"], None, None, "not a label: expected an index or a class name, got null"),
    ],
)
def test_a_label_that_means_nothing(names, count, label, message):
    with pytest.raises(MasktoolError) as caught:
        Classes(names, count).resolve(label)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, "abcdefg"), (9, "abcdefg"), (7, "abcdefg"), (1, "a"), (2, "ad"), (3, "ace")]
)
def test_a_limit_spreads_evenly(limit, expected):
    assert "".join(spread_evenly("abcdefg", limit)) == expected
