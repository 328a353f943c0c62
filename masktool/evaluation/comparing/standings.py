"""How contenders stand: one table of all figures, differences from the best of each budget, charts and notes.

Which is best at a budget is decided among all that cost no more, by the mean SRG through the judge. Others are compared
with it image by image: the interval of the mean difference leaves out how hard the images are, which the intervals of
the means hold. Where it reaches 0, these images do not tell the two apart. The best is chosen on the same images, so
that its lead is somewhat overrated.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval, as_float, interval_of_mean
from masktool.evaluation.findings import Cell, Chart, Findings, Line, Table
from masktool.evaluation.maps import BASELINE_MAPS, RANDOM_CELLS
from masktool.evaluation.metrics.localisation.pixel_average_precision import pixel_average_precision
from masktool.evaluation.metrics.ranking_agreement import FEWEST_MAPS, tabulate_agreement

SRG = "srg"
CURVES = ("insertion", "deletion")
BEST = "best"
"""Stands in place of the best's difference from itself."""
CHARTED_BASELINES = ("centre", RANDOM_CELLS)
"""Baseline maps that charts show: the one that photographers agree with, and chance as coarse as most maps."""


class ContenderRow(NamedTuple):
    """A row of the tables: a method at a budget, or a baseline map, whose budget is None."""

    method: str
    budget: int | None

    @property
    def label(self) -> str:
        """The row's name in notes."""
        return self.method if self.budget is None else f"{self.method} {self.budget}"


@dataclasses.dataclass(frozen=True)
class Standings:
    """The figures of all contenders over all images.

    Attributes:
        records: records of the images.
        judges: names of the models that judge; the first decides the order of the rows.
        explained_with: name of the model that the maps explain.
        budgets: budgets of forward passes, rising.
        seed: seed of the resamples.
    """

    records: Sequence[Mapping[str, Any]]
    judges: Sequence[str]
    explained_with: str
    budgets: Sequence[int]
    seed: int

    @functools.cached_property
    def found(self) -> Mapping[ContenderRow, list[Mapping[str, Any]]]:
        """What the records hold of each row, in the order of the images; of rows that all images have."""
        rows: dict[ContenderRow, list[Mapping[str, Any]]] = {}
        for record in self.records:
            for each in record["maps"]:
                rows.setdefault(ContenderRow(each["method"], each["budget"]), []).append(each)
        return {row: found for row, found in rows.items() if len(found) == len(self.records)}

    @property
    def contenders(self) -> list[ContenderRow]:
        """The rows of methods: by budget, and within it the best by the first judge first."""
        own = [row for row in self.found if row.budget is not None]
        return sorted(own, key=lambda row: (row.budget or 0, -self.gains(row, self.judges[0]).mean()))

    @property
    def baselines(self) -> list[ContenderRow]:
        """The rows of baseline maps."""
        return [row for row in self.found if row.budget is None]

    def findings(self) -> Findings:
        """Returns tables, charts and notes."""
        tables = [self.main_table(), self.curve_table()]
        if len(self.judges) > 1 and len(self.found) >= FEWEST_MAPS:
            tables.append(self.agreement_table())
        return Findings(tuple(tables), tuple(self.chart(judge) for judge in self.judges), tuple(self.notes()))

    def gains(self, row: ContenderRow, judge: str, figure: str = SRG) -> NDArray[np.float64]:
        """Returns a figure of one row through a judge on all images."""
        return np.array([as_float(each["judged"][judge][figure]) for each in self.found[row]])

    def mean(self, row: ContenderRow, key: str) -> Interval:
        """Returns the mean of a figure that no judge gives, over the images that have it."""
        return interval_of_mean([as_float(each[key]) for each in self.found[row]], self.seed)

    def within(self, budget: int) -> list[ContenderRow]:
        """Returns the methods that compete at a budget: of each the contender of the largest budget up to it."""
        last: dict[str, ContenderRow] = {}
        for row in self.contenders:
            if row.budget is not None and row.budget <= budget:
                last[row.method] = row
        return list(last.values())

    def best(self, budget: int, judge: str) -> ContenderRow | None:
        """Returns the method of the highest mean SRG within a budget; None where there is none."""
        return max(self.within(budget), key=lambda row: self.gains(row, judge).mean(), default=None)

    def behind(self, row: ContenderRow, other: ContenderRow, judge: str) -> Interval:
        """Returns by how much a row is behind another, image by image; below 0 where it is."""
        return interval_of_mean(self.gains(row, judge) - self.gains(other, judge), self.seed)

    def main_table(self) -> Table:
        """Returns the table of what decides: SRG through every judge, localisation, stability and cost."""
        columns = [
            *("method", "budget", "passes"),
            *(text for judge in self.judges for text in (f"SRG, {judge}", f"less the best, {judge}")),
            *("energy", "PxAP", "stability", "CPU seconds", "seconds"),
        ]
        rows = tuple(self.main_row(row) for row in (*self.contenders, *self.baselines))
        caption = (
            f"Maps made with {self.explained_with}, {len(self.records)} images. SRG: area between removing the least "
            "and the most relevant first, through the model named. Less the best: from the method of the highest SRG "
            "that costs no more, image by image; where the interval reaches 0 these images do not tell the two apart. "
            "Energy, PxAP: on the object, of images that the model gets right. Stability: rank correlation of two "
            "seeds' maps. Higher is better in all of these."
        )
        return Table("compare", caption, tuple(columns), rows)

    def main_row(self, row: ContenderRow) -> tuple[Cell, ...]:
        """Returns one row of the main table."""
        cells: list[Cell] = [row.method, row.budget, self.passes(row)]
        for judge in self.judges:
            cells += [interval_of_mean(self.gains(row, judge), self.seed), self.less_the_best(row, judge)]
        cells += [self.mean(row, "energy"), self.precision(row)]
        if row.budget is None:
            return (*cells, None, None, None)
        seconds = (self.mean(row, key).value for key in ("cpu_seconds", "wall_seconds"))
        return (*cells, self.mean(row, "stability"), *seconds)

    def less_the_best(self, row: ContenderRow, judge: str) -> Cell:
        """Returns by how much a contender is behind the best within its budget; of a baseline map nothing."""
        if row.budget is None or (best := self.best(row.budget, judge)) is None:
            return None
        return BEST if row == best else self.behind(row, best, judge)

    def passes(self, row: ContenderRow) -> int | None:
        """Returns the mean number of passes of a contender's map."""
        passes = [each["passes"] for each in self.found[row] if each["passes"] is not None]
        return round(float(np.mean(passes))) if passes else None

    def precision(self, row: ContenderRow) -> Interval:
        """Returns PxAP over the images with a known object."""
        counts = [each["counts"] for each in self.found[row] if each["counts"] is not None]
        return pixel_average_precision(counts, self.seed)

    def curve_table(self) -> Table:
        """Returns the table of insertion and deletion through every judge."""
        columns = ["method", "budget", *(f"{figure}, {judge}" for judge in self.judges for figure in CURVES)]
        rows: list[tuple[Cell, ...]] = []
        for row in (*self.contenders, *self.baselines):
            figures = [self.gains(row, judge, figure) for judge in self.judges for figure in CURVES]
            rows.append((row.method, row.budget, *(interval_of_mean(each, self.seed) for each in figures)))
        caption = (
            "Areas under the score while pixels appear (insertion, higher is better) or vanish (deletion, lower is "
            "better), the most important first, through the model named; SRG is their difference."
        )
        return Table("compare-curves", caption, tuple(columns), tuple(rows))

    def agreement_table(self) -> Table:
        """Returns the table of how far the judges rank all maps alike."""

        def values(figure: str, judge: str) -> NDArray[np.float64]:
            return np.stack([self.gains(row, judge, figure) for row in self.found], axis=1)

        return tabulate_agreement("compare-agreement", (SRG, *CURVES), self.judges, values, self.seed)

    def chart(self, judge: str) -> Chart:
        """Returns the chart of SRG against passes: a line for each method, one point for what has one cost."""
        lines = []
        for method in dict.fromkeys(row.method for row in self.contenders):
            own = [row for row in self.contenders if row.method == method]
            y = tuple(interval_of_mean(self.gains(row, judge), self.seed) for row in own)
            lines.append(Line(method, y, tuple(float(self.passes(row) or 0) for row in own)))
        ends = (float(self.budgets[0]), float(self.budgets[-1]))
        for row in self.baselines:
            if row.method in CHARTED_BASELINES:
                flat = interval_of_mean(self.gains(row, judge), self.seed)
                lines.append(Line(f"{row.method} (no model)", (flat, flat), ends))
        return Chart(
            f"srg-{judge}",
            f"SRG against passes, judged through {judge}",
            "forward passes",
            "SRG (higher is better)",
            self.ticks(),
            tuple(lines),
            scale="log",
        )

    def ticks(self) -> tuple[float, ...]:
        """Returns the ticks of the charts: the budgets, and before them what the cheapest map takes."""
        cheapest = min((passes for row in self.contenders if (passes := self.passes(row))), default=self.budgets[0])
        return tuple(map(float, dict.fromkeys((min(cheapest, self.budgets[0]), *self.budgets))))

    def notes(self) -> Iterator[str]:
        """Yields what the tables say, in words: the best at each budget, what is level with it, what beats no map."""
        for judge in self.judges:
            yield from (self.note_best(budget, judge) for budget in self.budgets if self.best(budget, judge))
            yield from self.note_baselines(judge)
        yield from self.note_scope()
        yield from self.note_left_out()
        yield (
            "Which is best is chosen on the same images that it is measured on, so that its lead is somewhat "
            "overrated. Passes with gradients count as one, and so do those of the layers behind a feature map."
        )

    def note_best(self, budget: int, judge: str) -> str:
        """Returns the best within a budget, and what these images do not tell from it."""
        best = self.best(budget, judge)
        assert best is not None
        level = [row.label for row in self.within(budget) if row != best and self.behind(row, best, judge).high >= 0]
        gain = interval_of_mean(self.gains(best, judge), self.seed)
        others = f"level with it: {', '.join(level)}" if level else "no other method is level with it"
        return f"Within {budget} passes, judged through {judge}: {best.label} has the highest SRG, {gain}; {others}."

    def note_baselines(self, judge: str) -> Iterator[str]:
        """Yields which contenders are not above the best map that knows nothing of the model."""
        top = max(self.baselines, key=lambda row: self.gains(row, judge).mean(), default=None)
        if top is None:
            return
        below = [row.label for row in self.contenders if self.behind(row, top, judge).low <= 0]
        gain = interval_of_mean(self.gains(top, judge), self.seed)
        which = f"not clearly above it: {', '.join(below)}" if below else "every method is clearly above it"
        yield f"Of {', '.join(BASELINE_MAPS)} the highest SRG through {judge} has {top.label}, {gain}; {which}."

    def note_scope(self) -> Iterator[str]:
        """Yields R-OMS of every judge: removing a random cell after the other is what deletion of random cells does."""
        random = next((row for row in self.baselines if row.method == RANDOM_CELLS), None)
        if random is not None:
            scopes = (
                f"{judge} {interval_of_mean(self.gains(random, judge, 'deletion'), self.seed)}" for judge in self.judges
            )
            yield f"R-OMS, the probability left while cells of a 7 x 7 grid go at random: {', '.join(scopes)}."

    def note_left_out(self) -> Iterator[str]:
        """Yields which methods give no map at which budget, and why; rows that an image lacks are in no table."""
        counts = collections.Counter(
            (each["method"], each["budget"], each["why"]) for record in self.records for each in record["left_out"]
        )
        for (method, budget, why), count in counts.items():
            images = "" if count == len(self.records) else f", on {count} of {len(self.records)} images"
            yield f"{method} is not at {budget}{images}: {why}."
