"""What an evaluation finds: tables, charts and notes, as plain values; printing, plotting and saving are elsewhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from masktool.datasets.dataset import Problem
from masktool.evaluation.bootstrap import Interval

SCHEMA = "masktool.evaluation/1"
Cell = str | int | float | Interval | None
"""A cell of a table. None is shown as empty: the column does not apply to the row."""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of an evaluation.

    Attributes:
        name: short name, for files and headings.
        caption: text above the table: what is measured, on what, and which direction is better.
        columns: headings of the columns.
        rows: cells, one per column.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def is_numeric(self, column: int) -> bool:
        """Tells whether a column, by its position, holds figures."""
        return any(isinstance(row[column], Interval | float | int) for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Returns the table as JSON values; an interval is an object with value, low, high and n."""
        rows = [[encode_cell(cell) for cell in row] for row in self.rows]
        return {"name": self.name, "caption": self.caption, "columns": list(self.columns), "rows": rows}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Table:
        """Returns the table that :meth:`as_json` made JSON values of."""
        rows = tuple(tuple(decode_cell(cell) for cell in row) for row in document["rows"])
        return cls(document["name"], document["caption"], tuple(document["columns"]), rows)


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart, or one group of bars.

    Attributes:
        label: text in the legend.
        y: values with their intervals, as many as the line has x.
        x: positions of its points; None takes the chart's. A line with its own has its intervals as whiskers.
    """

    label: str
    y: tuple[Interval, ...]
    x: tuple[float, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the line as JSON values, with its positions where it has its own."""
        own = {} if self.x is None else {"x": list(self.x)}
        return {"label": self.label, "y": [encode_cell(y) for y in self.y]} | own


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart of figures.

    Attributes:
        name: short name, for files and headings.
        title: heading of the chart: what it shows.
        x_label: label of the horizontal axis, with its unit.
        y_label: label of the vertical axis, with its unit.
        x: positions of the points, or names of the bars; where lines have their own, the ticks of the axis.
        lines: lines, or groups of bars, that are compared.
        kind: kind of the chart: ``line`` or ``bar``.
        scale: scale of the horizontal axis of lines.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...] | tuple[str, ...]
    lines: tuple[Line, ...]
    kind: Literal["line", "bar"] = "line"
    scale: Literal["linear", "log"] = "linear"

    def as_json(self) -> dict[str, Any]:
        """Returns the chart as JSON values."""
        return {**dataclasses.asdict(self), "x": list(self.x), "lines": [line.as_json() for line in self.lines]}


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of an evaluation over all images.

    Attributes:
        tables: tables of the figures.
        charts: charts of the figures, where a chart says more.
        notes: sentences on what the reader must know.
    """

    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        part: name of the part.
        title: title of the part, for headings.
        settings: everything that decides the figures: models with their digests, options, seed; JSON values by name.
        findings: the figures.
        problems: data that could not be used.
        n_images: number of images that were measured.
        seconds: wall time of this run in seconds, images of an earlier, stopped run not counted.
        data_sha256: digest of the images and of their annotations.
        command: command that was typed; empty where none was.
        images: records of what was measured of each image, by its name, so that two runs can be compared image by
            image.
    """

    part: str
    title: str
    settings: Mapping[str, Any]
    findings: Findings
    problems: tuple[Problem, ...]
    n_images: int
    seconds: float
    data_sha256: str = ""
    command: str = ""
    images: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns the evaluation as JSON values; the same command gives the same values, but for ``timing``."""
        return {
            "schema": SCHEMA,
            "part": self.part,
            "title": self.title,
            "command": self.command,
            "settings": dict(self.settings),
            "data_sha256": self.data_sha256,
            "n_images": self.n_images,
            "tables": [table.as_json() for table in self.findings.tables],
            "charts": [chart.as_json() for chart in self.findings.charts],
            "notes": list(self.findings.notes),
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "images": dict(self.images),
            "timing": {"seconds": self.seconds},
        }


def encode_cell(cell: Cell) -> Any:
    """Returns a cell as a JSON value; NaN becomes an undefined interval, whose NaN are null."""
    if isinstance(cell, float) and not math.isfinite(cell):
        cell = Interval(cell, cell, cell, 0)
    if not isinstance(cell, Interval):
        return cell
    figures = {"value": cell.value, "low": cell.low, "high": cell.high}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()} | {"n": cell.n}


def decode_cell(value: Any) -> Cell:
    """Returns the cell that :func:`encode_cell` made a JSON value of."""
    if not isinstance(value, Mapping):
        cell: Cell = value
        return cell
    figures = (value["value"], value["low"], value["high"])
    figure, low, high = (float("nan") if number is None else float(number) for number in figures)
    return Interval(figure, low, high, value["n"])
