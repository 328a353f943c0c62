"""Localisation: do maps of the true class find the object of that class?

Every method stands beside maps that know nothing of the model (:data:`masktool.evaluation.maps.BASELINE_MAPS`): what
does not beat them has not shown that it finds anything. Maps are judged at the model's input, against the object's
pixels where they are known (pointing game, energy, PxAP), else those in its boxes; F1, LE, OM and MaxBoxAcc against the
boxes, or the tight rectangle of the object's pixels where there are none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.datasets.dataset import Box
from masktool.errors import MasktoolError
from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Cell, Chart, Findings, Line, Table
from masktool.evaluation.maps import BASELINE_MAPS, CENTRE, Map, MethodChoice
from masktool.evaluation.metrics.localisation.boxes import box_of
from masktool.evaluation.metrics.localisation.energy import energy_inside
from masktool.evaluation.metrics.localisation.f1 import soft_f1
from masktool.evaluation.metrics.localisation.max_box_accuracy import (
    V1_LEVELS,
    V2_LEVELS,
    max_box_accuracy,
    passed_levels,
)
from masktool.evaluation.metrics.localisation.pixel_average_precision import count_pixels, pixel_average_precision
from masktool.evaluation.metrics.localisation.pointing_game import point
from masktool.evaluation.metrics.localisation.tight_box import localisation_error, tight_box_iou
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import MapPart, check_distinct, register
from masktool.evaluation.scene import Scene, fill_boxes, require_label
from masktool.explainers.reading import check_finite
from masktool.journal import Record
from masktool.messages import parameter

NO_MODEL = "none"
"""Name in place of a model's for the baseline maps."""
UNSIGNED_BASELINES = (CENTRE,)
"""Baseline maps whose 0 does not separate support from opposition."""
PIXEL_FIGURES = ("pointing game", "energy", "PxAP", "F1")
BOX_FIGURES = ("LE", "OM", "MaxBoxAcc V1", "MaxBoxAcc V2")
LOWER_IS_BETTER = ("LE", "OM")


class Row(NamedTuple):
    """One row of the tables: a method through a model, or a baseline map."""

    model: str
    method: str

    @property
    def label(self) -> str:
        """The row's name in charts and notes."""
        return self.method if self.model == NO_MODEL else f"{self.method}, {self.model}"


@dataclasses.dataclass(frozen=True)
class ObjectRegion:
    """Where the object lies in an image.

    Attributes:
        inside: pixels of the object, (h, w) bool.
        boxes: boxes around the object, (x0, y0, x1, y1); none where the crop left it out.
        box_pixels: pixels in any of the boxes, (h, w) bool.
    """

    inside: NDArray[np.bool_]
    boxes: tuple[Box, ...]
    box_pixels: NDArray[np.bool_]


@register
@dataclasses.dataclass(frozen=True)
class Localisation(MapPart):
    """Maps of the true class against the object of that class.

    Attributes:
        modes: one network, in one or several masking modes.
        methods: methods of explanation to judge, through each of the modes.
        correct_only: whether images that the first model gets wrong are left out.
        seed: seed of the methods, the random baseline and the resamples.
        batch: number of masks per forward pass; None takes the session's own.
        overlays: directory for overlays of the maps; None writes none.
        pictured: names of the images that get overlays.
    """

    name: ClassVar[str] = "localisation"
    title: ClassVar[str] = "Localisation"

    modes: Sequence[NamedModel]
    methods: Sequence[MethodChoice]
    correct_only: bool = False
    seed: int = 0
    batch: int | None = None
    overlays: Path | None = None
    pictured: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_distinct("method", [choice.name for choice in self.methods])

    @property
    def rows(self) -> list[Row]:
        """The rows that are compared, in the order of the tables."""
        own = [Row(model.name, choice.name) for choice in self.methods for model in self.modes]
        return [*own, *(Row(NO_MODEL, name) for name in BASELINE_MAPS)]

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        return {
            "methods": [choice.describe() for choice in self.methods],
            "correct_only": self.correct_only,
            "seed": self.seed,
            "batch": self.batch,
        }

    def measure(self, scene: Scene) -> Record:
        """Judges every map of one image."""
        label, region = require_label(scene), find_region(scene)
        scores = check_finite(self.modes[0].session.scores(scene.array)[0])
        right = int(scores.argmax()) == label
        if self.correct_only and not right:
            return {"right": right, "maps": None}
        found: dict[str, dict[str, Any]] = {model.name: {} for model in self.modes}
        for choice in self.methods:
            for model in self.modes:
                explanation = self.explain(model, scene, choice, label)
                attributions = explanation.model_attributions.astype(np.float64)
                judged = judge_map(attributions, region, explanation.signed)
                found[model.name][choice.name] = {**judged, "passes": explanation.forward_passes}
        found[NO_MODEL] = {
            name: judge_map(draw(scene, self.seed), region, name not in UNSIGNED_BASELINES)
            for name, draw in BASELINE_MAPS.items()
        }
        return {"right": right, "maps": found}

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings: one table of figures by pixels, one of figures by boxes."""
        used = [record for record in records.values() if record["maps"] is not None]
        figures = {row: self.figures(used, row) for row in self.rows}
        whose = "images that the model gets right" if self.correct_only else "all images with a label"
        about = f"maps of the true class at the model's input, {len(used)} images ({whose})"
        pixels = f"How far maps lie on the object: {about}; higher is better."
        boxes = (
            f"Boxes cut from maps against the object's: {about}; LE and OM are errors, the others higher the better."
        )
        tables = (
            self.tabulate("localisation", pixels, PIXEL_FIGURES, figures, mean_passes(used, self.rows)),
            self.tabulate("localisation-boxes", boxes, BOX_FIGURES, figures),
        )
        return Findings(tables, (self.plot(figures),), tuple(self.notes(records, figures, len(used))))

    def figures(self, used: Sequence[Record], row: Row) -> dict[str, Interval]:
        """Returns all figures of one row, by name."""
        own = [record["maps"][row.model][row.method] for record in used]
        boxed = [(each["iou"], record["right"]) for each, record in zip(own, used, strict=True)]
        boxed = [(iou, right) for iou, right in boxed if iou is not None]
        levels = [each["levels"] for each in own if each["levels"] is not None]
        counts = [each["counts"] for each in own if each["counts"] is not None]
        return {
            "pointing game": self.mean(each["pointing"] for each in own),
            "energy": self.mean(each["energy"] for each in own),
            "PxAP": pixel_average_precision(counts, self.seed),
            "F1": self.mean(each["f1"] for each in own),
            "LE": self.mean(localisation_error(iou) for iou, _ in boxed),
            "OM": self.mean(localisation_error(iou, right) for iou, right in boxed),
            "MaxBoxAcc V1": max_box_accuracy([each["largest"] for each in levels], V1_LEVELS, self.seed),
            "MaxBoxAcc V2": max_box_accuracy([each["any"] for each in levels], V2_LEVELS, self.seed),
        }

    def tabulate(
        self,
        name: str,
        caption: str,
        names: Sequence[str],
        figures: Mapping[Row, Mapping[str, Interval]],
        passes: Mapping[Row, int] | None = None,
    ) -> Table:
        """Returns a table of some figures, with the forward passes per map where they are given."""
        rows = []
        for row in self.rows:
            cells: list[Cell] = [row.method, row.model, *(figures[row][each] for each in names)]
            rows.append(tuple(cells if passes is None else [*cells, passes.get(row)]))
        return Table(name, caption, ("method", "model", *names, *(() if passes is None else ("passes",))), tuple(rows))

    def plot(self, figures: Mapping[Row, Mapping[str, Interval]]) -> Chart:
        """Returns a chart with bars of all figures of which more is better."""
        names = [name for name in (*PIXEL_FIGURES, *BOX_FIGURES) if name not in LOWER_IS_BETTER]
        lines = tuple(Line(name, tuple(figures[row][name] for row in self.rows)) for name in names)
        x = tuple(row.label for row in self.rows)
        return Chart("localisation", "Localisation of the true class", "map", "higher is better", x, lines, "bar")

    def notes(
        self, records: Mapping[str, Record], figures: Mapping[Row, Mapping[str, Interval]], n_used: int
    ) -> Iterator[str]:
        """Yields notes on the images behind the figures for the reader."""
        right = sum(record["right"] for record in records.values())
        yield f"The model gets {right} of {len(records)} images right."
        n_seen = max(interval.n for by_name in figures.values() for interval in by_name.values())
        if n_seen < n_used:
            yield f"Of {n_used} objects the crop left {n_used - n_seen} out: they are in no mean."
        missing = [
            f"{name} of {row.label} on {n_seen - interval.n}"
            for row, by_name in figures.items()
            for name, interval in by_name.items()
            if interval.n < n_seen
        ]
        if missing:
            yield f"Undefined, and in no mean, of {n_seen} images: {'; '.join(missing)}."


def find_region(scene: Scene) -> ObjectRegion:
    """Returns where the object lies in an image.

    Raises:
        MasktoolError: that is not known.
    """
    if scene.inside is None:
        raise MasktoolError(
            "no object",
            where=scene.known.name,
            fix="name its box in " + parameter("boxes") + " or its pixels in " + parameter("masks"),
        )
    rectangle = box_of(scene.inside)
    boxes = scene.boxes if scene.known.boxes else () if rectangle is None else (rectangle,)
    return ObjectRegion(scene.inside, boxes, fill_boxes(boxes, scene.size))


def judge_map(attributions: Map, region: ObjectRegion, signed: bool) -> dict[str, Any]:
    """Returns the part of a record that all figures need of one map.

    Args:
        attributions: map (h, w).
        region: where the object lies.
        signed: whether 0 separates support from opposition.
    """
    return {
        "pointing": point(attributions, region.inside),
        "energy": energy_inside(attributions, region.inside, signed),
        "f1": soft_f1(attributions, region.box_pixels, signed),
        "iou": tight_box_iou(attributions, region.boxes),
        "levels": passed_levels(attributions, region.boxes),
        "counts": count_pixels(attributions, region.inside),
    }


def mean_passes(used: Sequence[Record], rows: Sequence[Row]) -> dict[Row, int]:
    """Returns the mean number of forward passes per map, of the rows that need any."""
    if not used:
        return {}
    found = {
        row: [record["maps"][row.model][row.method]["passes"] for record in used]
        for row in rows
        if row.model != NO_MODEL
    }
    return {row: round(float(np.mean(passes))) for row, passes in found.items()}
