"""What stands in a folder, and that every reader of images looks into each folder once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from masktool.datasets import read_dataset
from masktool.datasets.examples import read_examples
from masktool.datasets.folders import list_folder
from masktool.interface.photographs import collect_photographs
from masktool.runtime.pictures import PNG_KEY


@pytest.fixture
def folder(tmp_path):
    """Two class folders with two pictures each, one of them a level deeper, beside a file of text."""
    for name in ("0/a.png", "0/b.png", "1/c.png", "1/deeper/d.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "data" / "notes.txt").write_text("notes")
    return tmp_path / "data"


@pytest.fixture
def scans(monkeypatch):
    """How often each folder was listed."""
    counts, iterdir = Counter(), Path.iterdir

    def counting(self):
        counts[self.name] += 1
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", counting)
    return counts


def test_the_contents_of_a_folder_are_sorted_out(folder):
    own = PngImagePlugin.PngInfo()
    own.add_text(PNG_KEY, "{}")
    Image.new("RGB", (4, 4)).save(folder / "explained.png", pnginfo=own)
    Image.new("RGB", (4, 4)).save(folder / "photograph.png")
    for hidden in (".hidden.png", ".hidden"):
        (folder / hidden).mkdir()
    contents = list_folder(folder)
    assert [path.name for path in contents.images] == ["photograph.png"]
    assert [path.name for path in contents.own] == ["explained.png"]
    assert [path.name for path in contents.others] == ["notes.txt"]
    assert [path.name for path in contents.subfolders] == ["0", "1"]


def test_a_data_set_of_subfolders_is_listed_once(folder, scans):
    assert [image.name for image in read_dataset(folder).images] == ["0/a.png", "0/b.png", "1/c.png"]
    assert scans == {"data": 1, "0": 1, "1": 1}


def test_examples_at_any_depth_are_listed_once(folder, scans):
    found = read_examples(folder, class_names=None, n_classes=2)
    assert [example.name for example in found] == ["0/a.png", "0/b.png", "1/c.png", "1/deeper/d.png"]
    assert scans == {"data": 1, "0": 1, "1": 1, "deeper": 1}


def test_photographs_of_a_command_line_are_listed_once(folder, scans):
    found = collect_photographs([folder / "0"], lambda _: None)
    assert [path.name for path in found] == ["a.png", "b.png"]
    assert scans == {"0": 1}
