"""Tables and charts of a metric, from the figures of all images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import as_float, interval_of_mean
from masktool.evaluation.findings import Cell, Chart, Line, Table
from masktool.evaluation.maps import RANDOM
from masktool.evaluation.metrics.faithfulness.metric import Curve, Figure, Metric
from masktool.evaluation.metrics.ranking_agreement import FEWEST_MAPS, tabulate_agreement

PLAIN = "no mask"
"""Name in place of the measuring model, for metrics that ask no model for masked images."""
WAYS = {"higher": "Higher is better.", "lower": "Lower is better.", None: "Says nothing by itself."}
Records = Sequence[Mapping[str, Any]]
"""Records of the images, each ``[model][metric][map]`` with the keys ``figures`` and ``curves``."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """One metric's results over all images.

    Attributes:
        metric: the metric that was measured.
        models: names of the models that the metric was measured through.
        maps: names of the maps that were judged, the rows of tables.
        records: records of the images.
        seed: seed of the resamples.
    """

    metric: Metric
    models: Sequence[str]
    maps: Sequence[str]
    records: Records
    seed: int

    @property
    def by_model(self) -> bool:
        """Whether the metric was measured through several models."""
        return self.metric.asks == "masks"

    def tables(self) -> Iterator[Table]:
        """Yields a table of maps by models for each figure, or, where there is no model to choose, one of figures.

        In front of them stands how far the models rank the maps alike, for what a figure depends on the way of hiding.
        Where random maps were judged too, a second table holds the differences from them, image by image: its intervals
        are free of how hard the images are.
        """
        if self.by_model and len(self.models) > 1 and len(self.maps) >= FEWEST_MAPS:
            yield self.agreement()
        against = (None, RANDOM) if RANDOM in self.maps and self.metric.asks != "nothing" else (None,)
        for other in against:
            figures = [figure for figure in self.metric.figures if other is None or figure.better]
            if self.by_model:
                for figure in figures:
                    yield self.table(
                        figure.name, describe_figure(figure), [(figure, model) for model in self.models], other
                    )
            else:
                caption = " ".join(f"{figure.name}: {describe_figure(figure)}" for figure in figures)
                yield self.table(self.metric.name, caption, [(figure, PLAIN) for figure in figures], other)

    def agreement(self) -> Table:
        """Returns the table of how far each pair of models ranks the maps alike by each figure."""
        figures = [figure.name for figure in self.metric.figures]

        def values(figure: str, model: str) -> NDArray[np.float64]:
            return np.stack([self.values(model, name, figure) for name in self.maps], axis=1)

        return tabulate_agreement(f"{self.metric.name}-agreement", figures, self.models, values, self.seed)

    def table(self, name: str, caption: str, columns: Sequence[tuple[Figure, str]], other: str | None) -> Table:
        """Returns one table of figures, less those of the map ``other`` where one is named."""
        rows: list[tuple[Cell, ...]] = []
        for row in self.maps:
            if row == other:
                continue
            values = [self.values(model, row, figure.name) for figure, model in columns]
            if other is not None:
                values = [
                    value - self.values(model, other, figure.name)
                    for value, (figure, model) in zip(values, columns, strict=True)
                ]
            rows.append((row, *(interval_of_mean(value, self.seed) for value in values)))
        if other is not None:
            name, caption = (
                f"{name}-minus-{other}",
                f"Minus the figure of the map {other!r} on the same image. {caption}",
            )
        headings = [model if self.by_model else figure.name for figure, model in columns]
        return Table(name, caption, ("map", *headings), tuple(rows))

    def charts(self) -> Iterator[Chart]:
        """Yields every curve of the metric through every model, one line per map."""
        for curve in self.metric.curves:
            for model in self.models:
                name, title = curve.name, curve.title
                if self.by_model:
                    name, title = f"{name}-{model}", f"{title}, measured through {model}"
                lines = tuple(Line(each, self.points(curve, model, each)) for each in self.maps)
                yield Chart(name, title, curve.x_label, curve.y_label, curve.x, lines)

    def values(self, model: str, name: str, figure: str) -> NDArray[np.float64]:
        """Returns one figure of one map on all images; NaN where it is undefined."""
        found = [record[model][self.metric.name][name]["figures"][figure] for record in self.records]
        return np.array([as_float(value) for value in found])

    def points(self, curve: Curve, model: str, name: str) -> tuple[Any, ...]:
        """Returns one curve of one map with its intervals."""
        found = [record[model][self.metric.name][name]["curves"][curve.name] for record in self.records]
        values = np.array([[as_float(value) for value in each] for each in found])
        return tuple(interval_of_mean(column, self.seed) for column in values.T)


def describe_figure(figure: Figure) -> str:
    """Returns a figure's meaning, and which direction is better, as text."""
    return f"{figure.meaning[0].upper()}{figure.meaning[1:]}. {WAYS[figure.better]}"
