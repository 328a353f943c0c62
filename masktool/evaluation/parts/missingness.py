"""Missingness bias: what a model predicts on images of which more and more is removed, in each masking mode.

Segments of an image go at random, the most salient first, or the least salient first. A masking mode is sound when
predictions change because evidence is gone, not because something is missing: it keeps many classes apart (class
entropy), keeps predictions (unchanged rate, class similarity, R-OMS) and stays right (accuracy). Objects, where they
are known, show besides whether the outline of what is missing tells the class (shape leak).

All modes of an image see the same masks. The salient orders come from one map, made with the first model: of modes
that are compared, the first has the advantage that the order was found with it; a method that masks nothing, such as
``gradient``, favours none.

Sources: Sriram Balasubramanian and Soheil Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, https://arxiv.org/abs/2211.14646. Saachi Jain et al., "Missingness Bias in Model Debugging", ICLR 2022,
https://arxiv.org/abs/2204.08945.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.evaluation.bootstrap import as_float
from masktool.evaluation.findings import Cell, Chart, Findings, Line, Table
from masktool.evaluation.maps import MethodChoice, explain_scene
from masktool.evaluation.metrics.missingness.class_entropy import entropy_intervals
from masktool.evaluation.metrics.missingness.removal_measures import (
    ACCURACY,
    ENTROPY,
    REFERENCE_SCOPE,
    UNCHANGED,
    Answers,
    Figures,
    Hierarchy,
    Measure,
    similarity_to,
)
from masktool.evaluation.metrics.missingness.shape_leak import Leak, leak_masks, summarise_leak
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import Part, register
from masktool.evaluation.removal import (
    ORDERS,
    Order,
    SegmentChoice,
    cut_segments,
    descending_order,
    masks_without,
    remove_fractions,
    segment_means,
)
from masktool.evaluation.scene import Scene
from masktool.explainers.mask_design import Masks
from masktool.explainers.reading import check_finite
from masktool.explainers.segmentation import Segments
from masktool.journal import Record
from masktool.option_checks import check_choice

FRACTIONS = tuple(step / 10 for step in range(11))
"""Default fractions of the segments that are removed: the paper's 0, .1, ... 1."""
CELLS = SegmentChoice()
SCORE_DIGITS = 6
"""Decimals of a probability in the records: in float32 it has no more."""
SALIENCY = MethodChoice("occlusion")
"""Default method behind the salient orders: it needs no gradients, no seed, and fewer passes than sampling."""
ByOrder = Mapping[tuple[str, Order], Figures]
"""Figures of one measure by mode and order."""


@register
@dataclasses.dataclass(frozen=True)
class Missingness(Part):
    """Predictions on images of which parts are removed.

    Attributes:
        modes: one network, exported in the masking modes to compare; the salient orders are made with the first.
        segments: choice of how images are cut into segments.
        orders: orders in which segments are removed.
        fractions: fractions of the segments that are removed.
        saliency: method of the map behind the salient orders, which is of the class predicted with nothing missing.
        hierarchy: hierarchy that says how alike classes are; None where it is unknown.
        seed: seed of random orders, ties, places of moved shapes and resamples.
        batch: number of masks per forward pass; None takes the session's own.
    """

    name: ClassVar[str] = "missingness"
    title: ClassVar[str] = "Missingness bias"

    modes: Sequence[NamedModel]
    segments: SegmentChoice = CELLS
    orders: Sequence[Order] = ORDERS
    fractions: Sequence[float] = FRACTIONS
    saliency: MethodChoice = SALIENCY
    hierarchy: Hierarchy | None = None
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        if not self.orders:
            raise MasktoolError(
                "option out of range", where="orders", expected=f"some of {', '.join(ORDERS)}", got="none"
            )
        for order in self.orders:
            check_choice("order", order, ORDERS)
        if not self.fractions or not all(isinstance(each, numbers.Real) and 0 <= each <= 1 for each in self.fractions):
            raise MasktoolError(
                "option out of range", where="fractions", expected="numbers from 0 to 1", got=list(self.fractions)
            )

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        salient = any(order != "random" for order in self.orders)
        return {
            **self.segments.describe(),
            "orders": list(self.orders),
            "fractions": list(self.fractions),
            "saliency": self.saliency.describe() if salient else None,
            "seed": self.seed,
            "batch": self.batch,
        }

    def measure(self, scene: Scene) -> Record:
        """Predicts one image with every set of segments removed, in every mode.

        Each distinct set is scored once per mode: all orders start and end alike.
        """
        segments = cut_segments(scene, self.segments)
        removed = self.remove(scene, segments)
        nothing = np.zeros((1, removed.shape[1]), np.bool_)
        distinct, positions = np.unique(np.concatenate([nothing, removed]), axis=0, return_inverse=True)
        holes = self.make_holes(scene)
        found = {}
        for model in self.modes:
            batch = model.session.batch_size(self.batch)
            scores = predict(model, scene, masks_without(distinct, segments, batch))
            classes = scores.argmax(axis=1)[positions.reshape(-1)]
            left = scores[:, classes[0]][positions.reshape(-1)]
            leak = [] if holes is None else predict(model, scene, [holes]).argmax(axis=1).tolist()
            found[model.name] = {
                "unmasked": int(classes[0]),
                "predicted": self.by_order(classes[1:].tolist()),
                "confidence": self.by_order([round(float(each), SCORE_DIGITS) for each in left[1:]]),
                "object_removed": leak[0] if leak else None,
                "hole_elsewhere": leak[1] if len(leak) > 1 else None,
            }
        return {"label": scene.known.label, "n_segments": removed.shape[1], "modes": found}

    def by_order(self, values: list[Any]) -> dict[Order, list[Any]]:
        """Returns values of all orders and fractions, order by order, by their order."""
        count = len(self.fractions)
        return {order: values[place * count : (place + 1) * count] for place, order in enumerate(self.orders)}

    def remove(self, scene: Scene, segments: Segments) -> NDArray[np.bool_]:
        """Returns which segments are gone, (orders · fractions, S), order by order."""
        n_segments = int(segments.max()) + 1
        drawing, ties, _ = scene.random(self.seed).spawn(3)
        orders: dict[Order, NDArray[np.intp]] = {"random": drawing.permutation(n_segments)}
        if set(self.orders) - {"random"}:
            explanation = explain_scene(self.modes[0], scene, self.saliency, None, self.seed, self.batch)
            most = descending_order(segment_means(explanation.model_attributions, segments), ties)
            orders |= {"most-salient": most, "least-salient": most[::-1]}
        return np.concatenate([remove_fractions(orders[order], self.fractions) for order in self.orders])

    def make_holes(self, scene: Scene) -> Masks | None:
        """Returns the masks for the shape leak; None where label or object are unknown, or the crop left it out."""
        if scene.known.label is None or scene.inside is None or not scene.inside.any():
            return None
        *_, place = scene.random(self.seed).spawn(3)
        return leak_masks(scene.inside, place)

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings: a table and charts per measure, and the shape leak where objects are known."""
        labels = np.array([as_float(record["label"]) for record in records.values()])
        tables, charts = [], []
        for measure in self.measures(labels):
            figures = {
                (model.name, order): measure.figures(self.answers(records, model.name, order, labels), self.seed)
                for model in self.modes
                for order in self.orders
            }
            tables.append(self.tabulate(measure, figures, len(records)))
            charts += [self.plot(measure, order, figures) for order in self.orders]
        known = labels[~np.isnan(labels)]
        chance = 1 / len(np.unique(known)) if len(known) else float("nan")
        leaks = {model.name: collect_leak(records, model.name) for model in self.modes}
        leak = summarise_leak(leaks, chance, self.seed)
        return Findings((*tables, *leak.tables), (*charts, *leak.charts), (*self.notes(records, labels), *leak.notes))

    def measures(self, labels: NDArray[np.float64]) -> list[Measure]:
        """Returns the measures that the labels and the hierarchy, where known, allow."""
        chosen = [ENTROPY, UNCHANGED, REFERENCE_SCOPE]
        if not np.isnan(labels).all():
            chosen.append(ACCURACY)
        if self.hierarchy is not None:
            chosen.append(similarity_to(self.hierarchy))
        return chosen

    def answers(self, records: Mapping[str, Record], mode: str, order: Order, labels: NDArray[np.float64]) -> Answers:
        """Returns the predictions of one mode in one order."""
        own = [record["modes"][mode] for record in records.values()]
        return Answers(
            predicted=np.array([each["predicted"][order] for each in own]),
            unmasked=np.array([each["unmasked"] for each in own]),
            labels=labels,
            confidence=np.array([each["confidence"][order] for each in own]),
            fractions=self.fractions,
        )

    def tabulate(self, measure: Measure, figures: ByOrder, n_images: int) -> Table:
        """Returns the table of one measure's means over the fractions, modes as rows."""
        rows: list[tuple[Cell, ...]] = []
        for model in self.modes:
            means: list[Cell] = [figures[model.name, order].mean for order in self.orders]
            rows.append((model.name, *means))
        caption = f"{measure.meaning}; {measure.over}, {n_images} images; higher is better"
        return Table(measure.name, caption, ("mode", *self.orders), tuple(rows))

    def plot(self, measure: Measure, order: Order, figures: ByOrder) -> Chart:
        """Returns the chart of one measure by the fraction removed in one order, a line per mode."""
        lines = tuple(Line(model.name, figures[model.name, order].by_fraction) for model in self.modes)
        words = "removed at random" if order == "random" else f"the {order.replace('-', ' ')} removed first"
        return Chart(
            f"{measure.name}-{order}",
            f"{measure.title}, {words}",
            "fraction of the segments removed",
            measure.title.lower(),
            tuple(self.fractions),
            lines,
        )

    def notes(self, records: Mapping[str, Record], labels: NDArray[np.float64]) -> Iterator[str]:
        """Yields notes for the reader on the orders, and on the predictions with nothing removed."""
        first = self.modes[0].name
        unmasked = np.array([record["modes"][first]["unmasked"] for record in records.values()])
        entropy, _ = entropy_intervals(unmasked[:, None], self.seed)
        yield f"With nothing removed the class entropy is {entropy.value:.3f}."
        if (known := ~np.isnan(labels)).any():
            yield f"With nothing removed {(unmasked == labels).sum()} of {known.sum()} labelled images are right."
        if set(self.orders) != {"random"}:
            yield (
                f"The salient orders are those of {self.saliency.name} through {first}, for all modes alike; they are "
                "about the class that is predicted with nothing removed."
            )


def predict(model: NamedModel, scene: Scene, batches: Iterable[Masks]) -> NDArray[np.float32]:
    """Returns the scores of a model under each mask, (M, K)."""
    return np.concatenate([check_finite(scores) for scores in model.session.masked_scores(scene.array, batches)])


def collect_leak(records: Mapping[str, Record], mode: str) -> Leak:
    """Returns whether one mode was right on each image without the object, and with the hole elsewhere."""

    def right(record: Record, key: str) -> float:
        predicted = record["modes"][mode][key]
        return float("nan") if predicted is None else float(predicted == record["label"])

    removed, elsewhere = (
        np.array([right(record, key) for record in records.values()]) for key in ("object_removed", "hole_elsewhere")
    )
    return Leak(removed, elsewhere)
