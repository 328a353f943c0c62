"""Sanity check: do explanations change when the network loses what it has learned?

Layer by layer, from the last to the first, weights are redrawn at random, and the map of the class that the original
predicts is compared with the original's. A method whose maps stay alike explains the image, not the network. How alike
two maps of the original are under different seeds is shown beside it: what sampling alone changes.
Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3, https://arxiv.org/abs/1810.03292.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Cell, Chart, Findings, Line, Table
from masktool.evaluation.maps import Map, MethodChoice
from masktool.evaluation.metrics.map_similarity import (
    absolute_rank_correlation,
    rank_correlation,
    structural_similarity,
)
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import MapPart, check_distinct, register
from masktool.evaluation.scene import Scene
from masktool.explainers.reading import check_finite
from masktool.journal import Record
from masktool.runtime.session import MaskedSession

RESEEDED = "none (other seed)"
"""Name of the stage that compares the original with itself."""
SCORE = "score"
SIMILARITIES: Mapping[str, Callable[[Map, Map], float | None]] = {
    "Spearman": rank_correlation,
    "Spearman of absolute values": absolute_rank_correlation,
    "SSIM": structural_similarity,
}
"""Measures of how alike two maps are, by the names that tables show."""


@dataclasses.dataclass(frozen=True)
class RandomisedCopy:
    """A copy of the network with some layers randomised.

    Attributes:
        name: name of the layer that was randomised last.
        layers: names of all layers that were randomised.
        open: function that opens the copy; memory holds one copy at a time.
    """

    name: str
    layers: tuple[str, ...]
    open: Callable[[], AbstractContextManager[MaskedSession]]

    @classmethod
    def at(cls, path: Path, layers: tuple[str, ...], original: MaskedSession) -> RandomisedCopy:
        """Returns the copy in a file, to be run with the original's providers and threads.

        Args:
            path: path of the copy.
            layers: names of the layers whose weights are redrawn in it, the one redrawn last at the end.
            original: session of the network.
        """
        open_copy = functools.partial(
            MaskedSession,
            path,
            providers=original.providers,
            threads=original.threads,
            provider_options=original.provider_options,
        )
        return cls(layers[-1], layers, open_copy)


@register
@dataclasses.dataclass(frozen=True)
class Randomisation(MapPart):
    """Maps through randomised copies of a network against the original's.

    Attributes:
        original: network as it was exported.
        stages: randomised copies of the network, the least randomised first.
        methods: methods of explanation to check.
        seed: seed of the methods and the resamples; the same for all copies.
        batch: number of masks per forward pass; None takes the session's own.
        overlays: directory for overlays of the maps; None writes none.
        pictured: names of the images that get overlays.
    """

    name: ClassVar[str] = "randomisation"
    title: ClassVar[str] = "Weight randomisation"

    original: NamedModel
    stages: Sequence[RandomisedCopy]
    methods: Sequence[MethodChoice]
    seed: int = 0
    batch: int | None = None
    overlays: Path | None = None
    pictured: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_distinct("method", [choice.name for choice in self.methods])
        check_distinct("stage", [stage.name for stage in self.stages])

    @property
    def models(self) -> Sequence[NamedModel]:
        """The original; its copies are opened one at a time."""
        return [self.original]

    @property
    def depths(self) -> Mapping[str, int]:
        """The number of randomised layers at each stage; the first stage is the original with another seed."""
        return {RESEEDED: 0} | {stage.name: len(stage.layers) for stage in self.stages}

    @property
    def cascading(self) -> bool:
        """Whether every stage randomises all layers of the one before."""
        depths = list(self.depths.values())
        return all(earlier < later for earlier, later in itertools.pairwise(depths))

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        return {
            "stages": {stage.name: list(stage.layers) for stage in self.stages},
            "methods": [choice.describe() for choice in self.methods],
            "seed": self.seed,
            "batch": self.batch,
        }

    def measure(self, scene: Scene) -> Record:
        """Returns how alike the maps of one image at every stage and the original's are."""
        scores = check_finite(self.original.session.scores(scene.array)[0])
        target = int(scores.argmax())
        maps = {choice.name: self.draw(self.original, scene, choice, target, self.seed) for choice in self.methods}
        found = {RESEEDED: self.compare(self.original, scene, maps, target, self.seed + 1)}
        for position, stage in enumerate(self.stages):
            with stage.open() as session:
                model = NamedModel(f"randomised-{position + 1}", session, self.original.graphs)
                found[stage.name] = self.compare(model, scene, maps, target, self.seed)
        return {"target": target, "score": float(scores[target]), "stages": found}

    def compare(
        self, model: NamedModel, scene: Scene, maps: Mapping[str, Map], target: int, seed: int
    ) -> dict[str, Any]:
        """Returns the target's score at one stage, and how alike its maps and the original's are by every measure.

        A network whose scores are no longer finite has no maps.
        """
        score = float(model.session.scores(scene.array)[0, target])
        if not math.isfinite(score):
            return {SCORE: None, **{choice.name: dict.fromkeys(SIMILARITIES) for choice in self.methods}}
        found: dict[str, Any] = {SCORE: score}
        for choice in self.methods:
            drawn = self.draw(model, scene, choice, target, seed)
            found[choice.name] = {name: measure(maps[choice.name], drawn) for name, measure in SIMILARITIES.items()}
        return found

    def draw(self, model: NamedModel, scene: Scene, choice: MethodChoice, target: int, seed: int) -> Map:
        """Returns one map of an image, (h, w) at the model's input."""
        return self.explain(model, scene, choice, target, seed).model_attributions.astype(np.float64)

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings: one table over methods and stages, and one chart per measure."""
        figures = {
            (choice.name, stage, measure): self.mean(
                record["stages"][stage][choice.name][measure] for record in records.values()
            )
            for choice in self.methods
            for stage in self.depths
            for measure in SIMILARITIES
        }
        table = self.tabulate(figures, self.scores(records), len(records))
        charts = tuple(self.plot(measure, figures) for measure in SIMILARITIES)
        return Findings((table,), charts, tuple(self.notes(records, figures)))

    def scores(self, records: Mapping[str, Record]) -> dict[str, Interval]:
        """Returns the mean score of the class that the original predicts, at every stage."""
        return {
            stage: self.mean(record["stages"][stage][SCORE] for record in records.values()) for stage in self.depths
        }

    def tabulate(
        self, figures: Mapping[tuple[str, str, str], Interval], scores: Mapping[str, Interval], n_images: int
    ) -> Table:
        """Returns the table of similarities by method and stage."""
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                choice.name,
                stage,
                depth,
                *(figures[choice.name, stage, measure] for measure in SIMILARITIES),
                scores[stage],
            )
            for choice in self.methods
            for stage, depth in self.depths.items()
        )
        caption = (
            f"How alike maps through a network with randomised layers are to the original's, {n_images} images; the "
            "lower, the more the method depends on what was learned (of unrelated maps rank correlations are about 0, "
            "SSIM above it)"
        )
        columns = (
            "method",
            "up to layer" if self.cascading else "layer",
            "layers",
            *SIMILARITIES,
            "score of the class",
        )
        return Table("randomisation", caption, columns, rows)

    def plot(self, measure: str, figures: Mapping[tuple[str, str, str], Interval]) -> Chart:
        """Returns the chart of one measure over the stages, a line (or a group of bars) per method."""
        lines = tuple(
            Line(choice.name, tuple(figures[choice.name, stage, measure] for stage in self.depths))
            for choice in self.methods
        )
        name = measure.lower().replace(" ", "-")
        title = f"Similarity to the original's maps: {measure}"
        if self.cascading:
            x = tuple(float(depth) for depth in self.depths.values())
            return Chart(name, title, "layers randomised, from the last", measure, x, lines)
        return Chart(name, title, "layer randomised", measure, tuple(self.depths), lines, "bar")

    def notes(self, records: Mapping[str, Record], figures: Mapping[tuple[str, str, str], Interval]) -> Iterator[str]:
        """Yields notes on the figures for the reader."""
        yield (
            "Maps are of the class that the original predicts. 0 layers: the original's maps under another seed, which "
            "is what sampling alone leaves alike."
        )
        yield "Each stage is one draw of the weights: the intervals are over images, not over draws."
        missing = [
            f"{measure} of {method} at {stage} on {len(records) - interval.n}"
            for (method, stage, measure), interval in figures.items()
            if interval.n < len(records)
        ]
        if missing:
            yield f"Undefined (a flat map, or scores that are not finite), and in no mean: {'; '.join(missing)}."
