"""One self-contained HTML page of all evaluations in a directory; the page loads nothing from the network."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masktool.contract import __version__
from masktool.data_files import read_bytes
from masktool.errors import MasktoolError
from masktool.evaluation.findings import Table
from masktool.evaluation.overlays import arrange, data_uri, find_overlays
from masktool.evaluation.saved import find_inside, read_evaluation
from masktool.extras import require_extra
from masktool.files import atomic_path
from masktool.runtime.pictures import open_picture

ORDER = ("compare", "missingness", "faithfulness", "localisation", "lime-alignment", "randomisation")
"""Order of the sections; others follow by name."""
TEMPLATE = "report.html"
PAGE = "report.html"
"""Default name of the page, in the directory of the evaluations."""
IMAGES = 4
WIDE = 2.0
"""Width over height from which a chart's writing is too small beside another chart."""


@dataclasses.dataclass(frozen=True)
class ChartImage:
    """A chart as the page shows it.

    Attributes:
        name: name of the chart.
        title: heading of the chart: what it shows.
        uri: URI that holds the PNG.
        wide: whether the chart needs the page's whole width.
    """

    name: str
    title: str
    uri: str
    wide: bool


@dataclasses.dataclass(frozen=True)
class Section:
    """One evaluation in the page.

    Attributes:
        document: evaluation as it was saved.
        tables: tables of the evaluation.
        charts: charts of the evaluation.
        command: command that measured it, an option per line; empty where none was typed.
        settings: settings of the evaluation, as indented JSON.
    """

    document: Mapping[str, Any]
    tables: tuple[Table, ...]
    charts: tuple[ChartImage, ...]
    command: str
    settings: str


def write_report(
    directory: str | os.PathLike[str], path: str | os.PathLike[str] | None = None, n_images: int = IMAGES
) -> Path:
    """Writes one HTML page of all evaluations in a directory, which needs no network; returns the page's path.

    Args:
        directory: directory that :func:`masktool.evaluate` wrote into.
        path: path of the page; None is ``report.html`` in the directory.
        n_images: largest number of images to show sample explanations of.

    Raises:
        MasktoolError: the directory holds no evaluation, a file is damaged, or the page cannot be written.
    """
    directory = Path(directory)
    target = directory / PAGE if path is None else Path(path)
    page = make_report(directory, n_images)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # of half a character in JSON
    return target


def make_report(directory: Path, n_images: int = IMAGES) -> str:
    """Returns the HTML page of all evaluations in a directory; the same files give the same text.

    Args:
        directory: directory that evaluations were written into.
        n_images: largest number of images to show sample overlays of.

    Raises:
        MasktoolError: there is no evaluation, a file cannot be read, or the template engine is not installed.
    """
    documents = read_evaluations(directory)
    models = list(dict.fromkeys(model["name"] for each in documents for model in each["settings"]["models"]))
    overlays = find_overlays(directory, models)
    values = {
        "sections": [make_section(document, directory) for document in documents],
        "sheets": arrange(overlays, models, n_images),
        "images_found": len({overlay.image for overlay in overlays}),
        "version": __version__,
    }
    with require_extra("making a report"):
        import jinja2
    template = importlib.resources.files("masktool.evaluation").joinpath("templates", TEMPLATE)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def read_evaluations(directory: Path) -> list[Mapping[str, Any]]:
    """Returns the evaluations in a directory, in the order of the page; other JSON files are left alone.

    Raises:
        MasktoolError: there is no evaluation, or one cannot be read.
    """
    found = [document for path in sorted(directory.glob("*.json")) if (document := read_evaluation(path)) is not None]
    if not found:
        raise MasktoolError(
            "no evaluations", where=directory, expected="files such as missingness.json", fix="measure something first"
        )
    return sorted(found, key=lambda document: place(document["part"], ORDER))


def place(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Returns a name's sort key: by position in the order, then by name."""
    return (order.index(name) if name in order else len(order), name)


def make_section(document: Mapping[str, Any], directory: Path) -> Section:
    """Returns the page's section on one saved evaluation."""
    return Section(
        document,
        tuple(Table.from_json(table) for table in document["tables"]),
        tuple(read_chart(document["part"], chart, directory) for chart in document["charts"]),
        wrap_command(document["command"]),
        json.dumps(document["settings"], indent=2, ensure_ascii=False),
    )


def read_chart(part: str, chart: Mapping[str, Any], directory: Path) -> ChartImage:
    """Returns a chart of a saved evaluation, with the PNG that was written for it.

    Raises:
        MasktoolError: the PNG that was written with the evaluation is missing, or is no PNG now.
    """
    path = find_inside(directory, f"{part}.{chart['name']}.png")
    content = read_bytes(path, "a chart")
    with open_picture(path) as image:
        if image.format != "PNG":
            raise MasktoolError("not a chart", where=path, expected="PNG", got=image.format, fix="measure again")
        wide = image.width > WIDE * image.height
    return ChartImage(chart["name"], chart["title"], data_uri(content, "image/png"), wide)


def wrap_command(command: str) -> str:
    """Returns a shell's command line with an option per line."""
    lines: list[list[str]] = [[]]
    try:
        words = shlex.split(command)
    except ValueError:  # quotes that do not close: no shell took it
        return command
    for word in words:
        if word.startswith("-"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)
