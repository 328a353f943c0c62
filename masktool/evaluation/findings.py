"""What an evaluation finds: tables, charts and remarks, as values that print, plot and save themselves elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from masktool.evaluation.bootstrap import Interval

Cell = str | int | float | Interval | None
"""None is shown as empty: the column does not apply to the row."""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: short, for files and headings.
        caption: what is measured, on what, and which way is better.
        columns: headings.
        rows: one cell per column.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the table as JSON values; an interval is an object with value, low, high and n."""
        cells = [[dataclasses.asdict(c) if isinstance(c, Interval) else c for c in row] for row in self.rows]
        return {"name": self.name, "caption": self.caption, "columns": list(self.columns), "rows": cells}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart, or one group of bars.

    Attributes:
        label: in the legend.
        y: values with their intervals, as many as the chart has x.
    """

    label: str
    y: tuple[Interval, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One picture of figures.

    Attributes:
        name: short, for files and headings.
        title: what is shown.
        x_label: with its unit.
        y_label: with its unit.
        x: positions of the points, or names of the bars.
        lines: what is compared.
        kind: of drawing.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...] | tuple[str, ...]
    lines: tuple[Line, ...]
    kind: Literal["line", "bar"] = "line"

    def as_json(self) -> dict[str, Any]:
        """Returns the chart as JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the data that could not be used.

    Attributes:
        where: file, or entry of a file.
        what: is wrong with it, in one line.
    """

    where: str
    what: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """What all images together say.

    Attributes:
        tables: figures.
        charts: the same as pictures, where a picture says more.
        notes: what the reader must know, one sentence each.
    """

    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        part: name of what was evaluated.
        settings: everything that decides the figures: models with their digests, options, seed.
        findings: the figures.
        problems: data that was skipped.
        n_images: how many images were measured.
        seconds: wall time of this run, images of an earlier, stopped run not counted.
    """

    part: str
    settings: Mapping[str, Any]
    findings: Findings
    problems: tuple[Problem, ...]
    n_images: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns everything as JSON values; the same settings give the same, but for ``timing``."""
        return {
            "schema": "masktool.evaluation/1",
            "part": self.part,
            "settings": dict(self.settings),
            "n_images": self.n_images,
            "tables": [table.as_json() for table in self.findings.tables],
            "charts": [chart.as_json() for chart in self.findings.charts],
            "notes": list(self.findings.notes),
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "timing": {"seconds": self.seconds},
        }
