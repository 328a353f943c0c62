"""The HTML page: complete, self-contained, and safe whatever the files are called."""

import base64
import dataclasses
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from masktool import MasktoolError
from masktool.datasets.dataset import Problem
from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Chart, Evaluation, Findings, Line, Table
from masktool.evaluation.overlays import WIDEST, read_name
from masktool.evaluation.report import make_report, wrap_command
from masktool.evaluation.results import write_evaluation

HOSTILE = """<script>alert("x")</script>'&{{ 7 * 7 }}"""
VOID = {"meta", "img", "br", "link", "input", "hr"}
REFERENCES = ("src", "href", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """Collects what tests ask about, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.tags, self.tables, self.images, self.ids = [], [], [], [], [], set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.references += [(name, value) for name, value in attributes if name in REFERENCES]
        assert not any(name.startswith("on") for name in values), "no scripts in attributes"
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"caption": "", "cells": []})
        if tag in ("td", "th"):
            self.tables[-1]["cells"].append("")
        if tag == "img":
            self.images.append(values)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif {"td", "th"} & set(self.open):
            self.tables[-1]["cells"][-1] += data


def evaluation(part="localisation", **changes):
    rows = (
        ("lime", Interval(0.5, 0.4, 0.6, 3), 7, 0.25, None),
        (HOSTILE, Interval(0.5, 0.4, 0.6, 2), 7, float("nan"), "word"),
    )
    table = Table("pointing", f"higher is better {HOSTILE}", ("method", "hits", "count", "share", "empty"), rows)
    line = Line(HOSTILE, (Interval(0.5, 0.4, 0.6, 3), Interval(0.1, 0.0, 0.2, 3)))
    chart = Chart("hits", f"Hits {HOSTILE}", "method", "share", ("lime", "rise"), (line,), "bar")
    values = {
        "part": part,
        "title": f"Title of {part}",
        "settings": {"seed": 0, "models": [{"name": "layer"}, {"name": "0.5,0,0"}], "note": HOSTILE},
        "findings": Findings((table, dataclasses.replace(table, name="energy")), (chart,), (f"Note {HOSTILE}.",)),
        "problems": (Problem(HOSTILE, f"cannot be read {HOSTILE}"),),
        "n_images": 3,
        "seconds": 1.5,
        "data_sha256": "ab" * 32,
        "command": f"masktool evaluate {part} model.onnx 'my photos' --seed 0 -o out",
    }
    return Evaluation(**values | changes)


@pytest.fixture
def directory(tmp_path):
    """A directory with two evaluations and overlays of two images."""
    for part in ("localisation", "missingness"):
        write_evaluation(evaluation(part), tmp_path)
    (tmp_path / "other.json").write_text('{"schema": "something else"}')
    (tmp_path / "overlays").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (300, 900, 3), np.uint8)
    for image in ("a.b.jpg", "<i>&c.png"):
        for model in ("0.5,0,0", "layer"):
            for method in ("lime", "rise"):
                Image.fromarray(pixels).save(tmp_path / "overlays" / f"{image}.{model}.{method}.png")
    return tmp_path


def test_the_page_is_whole_and_self_contained(directory):
    text = make_report(directory)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert "script" not in page.tags
    assert "link" not in page.tags
    for name, value in page.references:
        if name == "href":
            assert value.removeprefix("#") in page.ids, "links stay in the page"
        else:
            assert value.startswith("data:image/")
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text


def test_images_are_embedded_and_say_what_they_show(directory):
    page = Page(make_report(directory))
    assert len(page.images) == 2 + 8
    for image in page.images:
        kind, content = image["src"].removeprefix("data:").split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
            picture.load()
            assert f"image/{picture.format.lower()}" == kind
            assert picture.width <= (WIDEST if kind == "image/jpeg" else 2000)
    alternatives = [image["alt"] for image in page.images]
    assert alternatives[0] == f"Chart: Hits {HOSTILE}"
    assert "lime of a.b.jpg, masking 0.5,0,0" in alternatives
    assert len(set(alternatives[2:])) == 8
    charts = [image["src"] for image in page.images if "png" in image["src"][:20]]
    expected = base64.b64encode((directory / "missingness.hits.png").read_bytes()).decode()
    assert charts[0].endswith(expected)


def test_every_table_is_there_with_its_intervals(directory):
    page = Page(make_report(directory))
    assert [table["caption"].split(":")[0] for table in page.tables[:4]] == ["pointing", "energy"] * 2
    cells = page.tables[0]["cells"]
    assert cells == [
        *("method", "hits", "count", "share", "empty"),
        *("lime", "0.500 [0.400, 0.600]", "7", "0.250", ""),
        *(HOSTILE, "0.500 [0.400, 0.600] n=2", "7", "undefined", "word"),
    ]


def test_sections_come_in_the_order_of_reading_with_what_is_needed_to_repeat_them(directory):
    text = Page(make_report(directory)).text
    assert text.index("Title of missingness") < text.index("Title of localisation") < text.index("Samples")
    assert "masktool evaluate missingness model.onnx 'my photos' \\\n  --seed 0 \\\n  -o out" in text
    assert '"seed": 0' in text
    assert "ab" * 32 in text
    assert "3 images measured, 1 problem with the data." in " ".join(text.split())


def test_hostile_names_are_text(directory):
    text = make_report(directory)
    assert "<script>" not in text
    assert "<i>" not in text
    assert "49" not in Page(text).text, "names are no templates"
    assert Page(text).text.count(f"Note {HOSTILE}.") == 2
    assert f"{HOSTILE}: cannot be read {HOSTILE}" in Page(text).text


def test_samples_stand_side_by_side(directory):
    (directory / "overlays" / "a.b.jpg.layer.rise.png").unlink()
    page = Page(make_report(directory))
    samples = page.tables[4:]
    assert [table["caption"] for table in samples] == ["<i>&c.png", "a.b.jpg"]
    for table in samples:
        assert [cell for cell in table["cells"] if cell] == ["masking", "lime", "rise", "layer", "0.5,0,0"]
    assert len(page.images) == 2 + 7


def test_so_many_samples(directory):
    page = Page(make_report(directory, n_images=1))
    assert len(page.tables) == 5
    assert "The first 1 of 2 images." in page.text
    assert len(Page(make_report(directory, n_images=0)).tables) == 4


def test_the_same_files_give_the_same_page(directory):
    assert make_report(directory) == make_report(directory)


def test_no_samples_no_charts_no_command_no_problems(tmp_path):
    plain = evaluation(findings=Findings((Table("t", "c", ("a",), ()),)), problems=(), command="")
    write_evaluation(plain, tmp_path)
    page = Page(make_report(tmp_path))
    assert page.images == []
    assert len(page.tables) == 1
    assert "problem" not in page.text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": "masktool.evaluation/0"}'])
def test_nothing_to_report(tmp_path, content):
    if content is not None:
        (tmp_path / "missingness.json").write_text(content)
    with pytest.raises(MasktoolError, match=r"not JSON.*missingness\.json" if content == "{" else "no evaluations"):
        make_report(tmp_path)


def test_a_chart_that_is_gone_or_damaged_is_named(directory):
    (directory / "missingness.hits.png").write_bytes(b"no picture")
    with pytest.raises(MasktoolError, match=r"missingness\.hits\.png"):
        make_report(directory)
    (directory / "missingness.hits.png").unlink()
    with pytest.raises(MasktoolError, match=r"file not found .*missingness\.hits\.png"):
        make_report(directory)


def test_an_overlay_that_is_damaged_is_named(directory):
    (directory / "overlays" / "a.b.jpg.layer.rise.png").write_bytes(b"no picture")
    with pytest.raises(MasktoolError, match=r"a\.b\.jpg\.layer\.rise\.png"):
        make_report(directory)


def test_without_the_template_engine(directory, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MasktoolError, match=r"making a report needs jinja2.*pip install 'masktool\[evaluate\]'"):
        make_report(directory)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg.layer.lime.png", ("a.jpg", "layer", "lime")),
        ("a.jpg.0.5,0,0.lime.png", ("a.jpg", "0.5,0,0", "lime")),
        ("a.jpg.unknown.lime.png", ("a.jpg", "unknown", "lime")),
        ("lime.png", None),
        ("layer.lime.png", None),
    ],
)
def test_names_of_overlays(tmp_path, name, expected):
    found = read_name(tmp_path / name, ("layer", "0.5,0,0", "5,0,0"))
    assert (found and (found.image, found.model, found.method)) == expected


def test_commands_are_wrapped_but_mean_the_same():
    assert wrap_command("") == ""
    assert wrap_command("a 'b c' --d 'e --f'") == "a 'b c' \\\n  --d 'e --f'"


def test_documents_are_plain_json(directory):
    document = json.loads((directory / "missingness.json").read_text(), parse_constant=pytest.fail)
    assert document["tables"][0]["rows"][1][3] == {"value": None, "low": None, "high": None, "n": 0}
