"""Faithfulness: do maps say what the model relies on?

Maps are made with one model and measured through several, the same network with other masking: what a metric prefers
because of how it removes pixels differs between them, what a map has found does not. Beside the methods stand maps that
know nothing of the model (:data:`masktool.evaluation.maps.BASELINE_MAPS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from masktool.evaluation.findings import Findings
from masktool.evaluation.maps import BASELINE_MAPS, Map, MethodChoice
from masktool.evaluation.metrics.faithfulness.metric import Measured, Metric
from masktool.evaluation.metrics.faithfulness.summary import PLAIN, Summary
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import MapPart, check_distinct, register
from masktool.evaluation.scene import Scene, require_label
from masktool.explainers.reading import check_finite
from masktool.explainers.target import TOP
from masktool.journal import Record
from masktool.option_checks import check_choice

TargetRule = Literal["top", "label"]
"""The class that maps explain and metrics watch: the one that the model predicts, or the image's own."""
TARGET_RULES: tuple[TargetRule, ...] = get_args(TargetRule)
CURVE_DIGITS = 6
"""Decimals of a curve's points in the records: a probability in float32 has no more."""


@register
@dataclasses.dataclass(frozen=True)
class Faithfulness(MapPart):
    """Metrics of faithfulness on maps of methods and baselines.

    Attributes:
        explainer: model that the maps explain; it also answers metrics that need no mask.
        measuring: models that answer the metrics that need masks.
        methods: methods of explanation, with their options.
        metrics: metrics to measure.
        target: rule for the class that is explained.
        seed: seed of every random choice.
        batch: number of images in one pass; None takes each session's choice.
        overlays: directory for overlays of the maps; None writes none.
        pictured: names of the images that get overlays.
    """

    name: ClassVar[str] = "faithfulness"
    title: ClassVar[str] = "Faithfulness"

    explainer: NamedModel
    measuring: Sequence[NamedModel]
    methods: Sequence[MethodChoice]
    metrics: Sequence[Metric]
    target: TargetRule = "top"
    seed: int = 0
    batch: int | None = None
    overlays: Path | None = None
    pictured: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGET_RULES)
        check_distinct("map", list(self.maps))
        check_distinct("metric", [metric.name for metric in self.metrics])

    @property
    def models(self) -> Sequence[NamedModel]:
        """The model that is explained, and the other models that measure."""
        return [self.explainer, *(model for model in self.measuring if model is not self.explainer)]

    @property
    def maps(self) -> Sequence[str]:
        """Names of the maps: of the methods, then of the baselines."""
        return [*(choice.name for choice in self.methods), *BASELINE_MAPS]

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        return {
            "explained_with": self.explainer.name,
            "measured_through": [model.name for model in self.measuring],
            "methods": [choice.describe() for choice in self.methods],
            "metrics": {metric.name: dataclasses.asdict(metric) for metric in self.metrics},
            "target": self.target,
            "seed": self.seed,
            "batch": {model.name: model.session.batch_size(self.batch) for model in self.models},
        }

    def measure(self, scene: Scene) -> Record:
        """Makes the maps of one image and measures them through every model."""
        scores = check_finite(self.explainer.session.scores(scene.array)[0])
        target = int(scores.argmax()) if self.target == TOP else require_label(scene)
        maps = {name: self.draw(scene, name, target, self.seed) for name in self.maps}
        found: dict[str, Any] = {}
        for metric in self.metrics:
            for name, model in self.answering(metric).items():
                measured = metric.measure(self.trial(scene, model, maps, target))
                found.setdefault(name, {})[metric.name] = {each: as_record(measured[each]) for each in self.maps}
        return {"target": target, "score": float(scores[target]), "measured": found}

    def answering(self, metric: Metric) -> Mapping[str, NamedModel]:
        """Returns the models that answer a metric, by the names that tables show."""
        return {model.name: model for model in self.measuring} if metric.asks == "masks" else {PLAIN: self.explainer}

    def trial(self, scene: Scene, model: NamedModel, maps: Mapping[str, Map], target: int) -> Trial:
        """Returns what a metric may ask of one image and one model."""
        return Trial(
            name=scene.known.name,
            image=scene.array,
            layout=model.session.layout,
            maps=maps,
            redraw=lambda name, seed: self.draw(scene, name, target, seed),
            target=target,
            answer=model.session.scores,
            masking=model.session.metadata.masking,
            batch=model.session.batch_size(self.batch),
            seed=self.seed,
        )

    def draw(self, scene: Scene, name: str, target: int, seed: int) -> Map:
        """Makes one map of an image, (h, w) float64, by the name that tables show."""
        if name in BASELINE_MAPS:
            return BASELINE_MAPS[name](scene, seed)
        choice = next(choice for choice in self.methods if choice.name == name)
        # the rule, where it is the predicted class: some methods say so when a class was named to them
        explanation = self.explain(self.explainer, scene, choice, TOP if self.target == TOP else target, seed)
        return check_finite(explanation.model_attributions).astype(np.float64)

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings, metric by metric."""
        measured = [record["measured"] for record in records.values()]
        summaries = [
            Summary(metric, list(self.answering(metric)), self.maps, measured, self.seed) for metric in self.metrics
        ]
        return Findings(
            tables=tuple(table for summary in summaries for table in summary.tables()),
            charts=tuple(chart for summary in summaries for chart in summary.charts()),
            notes=tuple(self.notes(len(records))),
        )

    def notes(self, n_images: int) -> Iterator[str]:
        """Yields notes on the figures for the reader."""
        explained = "the class that the model predicts" if self.target == TOP else "the true class"
        through = ", ".join(model.name for model in self.measuring)
        yield (
            f"{n_images} images; maps and scores of {explained}; maps made with {self.explainer.name}, columns are the "
            f"models that measure ({through})."
        )
        yield (
            "Pixels of equal value come in random order, the same for every map; a figure that is undefined for an "
            "image (a constant map, a score that never moves) does not count in means."
        )


def as_record(measured: Measured) -> dict[str, Any]:
    """Returns a map's figures and curves as JSON values."""
    curves = {
        name: [None if value is None else round(value, CURVE_DIGITS) for value in values]
        for name, values in measured.curves.items()
    }
    return {"figures": dict(measured.figures), "curves": curves}
