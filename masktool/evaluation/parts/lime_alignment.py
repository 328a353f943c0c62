"""LIME alignment: whether LIME, run through each masking mode, finds the object, and whether its answers agree.

LIME as in the paper on layer masking: 512 samples, p = .5, weights by cosine distance of width .25, ridge with
alpha = 1 on the probability of the class that is predicted with nothing missing. Per image:

    alignment   cos(a, o),  a_s = LIME's weight of segment s,  o_s = share of the object's pixels that lie in s
                = (weight on the object, |a where o > 0| / |a|) · (cosine over those segments alone)
    Jaccard     |A ∩ B| / |A ∪ B| of the 20 segments with the highest weights in two explanations of different seeds
    deletion    mean over k = 0 ... 20 of the class's probability with the k highest segments missing

The second factor of the alignment falls where a decisive part of the object outweighs the rest of it, which is no
fault: with few, large segments it can outdo the first. Read the alignment beside the weight on the object.

The explanations that Jaccard compares never share their samples, so that two modes which differ no more than two seeds
of one mode have the same figure as that mode with itself. Deletion is read through every mode for every mode's
explanation, beside random segments: within a column all sees the same bias of the measure.

Source: Sriram Balasubramanian and Soheil Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Cell, Chart, Findings, Line, Table
from masktool.evaluation.metrics.lime_alignment.agreement import agreement, expected_jaccard
from masktool.evaluation.metrics.lime_alignment.alignment import EQUAL, Weights, measure_alignment
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import Part, register
from masktool.evaluation.removal import SegmentChoice, cut_segments, descending_order, masks_without, remove_first
from masktool.evaluation.scene import Scene
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import build_method
from masktool.explainers.segmentation import Segments
from masktool.journal import Record
from masktool.option_checks import check_count

N_SAMPLES = 512
P_KEPT = 0.5
KERNEL_WIDTH = 0.25
ALPHA = 1.0
N_SEEDS = 2
N_TOP = 20
SUPERPIXELS = SegmentChoice("slic", n_segments=100)
RANDOM = "random segments"
"""Name in place of a mode's for random segments, an order that explains nothing."""


@register
@dataclasses.dataclass(frozen=True)
class LimeAlignment(Part):
    """LIME through each masking mode.

    Attributes:
        modes: one network, exported in the masking modes to compare.
        segments: choice of how images are cut into segments.
        n_samples: number of masks of each explanation.
        n_seeds: number of explanations of each image in each mode; of one alone there is no Jaccard index.
        n_top: number of top segments; images with no more segments have neither Jaccard index nor deletion.
        seed: seed of the first explanation, from which the others' seeds count up; also of ties and random segments.
        batch: number of masks per forward pass; None takes the session's own.
    """

    name: ClassVar[str] = "lime-alignment"
    title: ClassVar[str] = "LIME alignment"

    modes: Sequence[NamedModel]
    segments: SegmentChoice = SUPERPIXELS
    n_samples: int = N_SAMPLES
    n_seeds: int = N_SEEDS
    n_top: int = N_TOP
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        check_count("n_samples", self.n_samples, minimum=2)
        check_count("n_seeds", self.n_seeds)
        check_count("n_top", self.n_top)

    @property
    def names(self) -> tuple[str, ...]:
        """The masking modes' names, as the rows of tables."""
        return tuple(model.name for model in self.modes)

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        own = {name: getattr(self, name) for name in ("n_samples", "n_seeds", "n_top", "seed", "batch")}
        return {**self.segments.describe(), "p": P_KEPT, "kernel_width": KERNEL_WIDTH, "alpha": ALPHA, **own}

    def measure(self, scene: Scene) -> Record:
        """Explains one image in every mode with every seed."""
        segments = cut_segments(scene, self.segments)
        target = int(self.modes[0].session.scores(scene.array)[0].argmax())
        weights = {model.name: self.explain_seeds(model, scene, segments, target) for model in self.modes}
        return {
            "n_segments": int(segments.max()) + 1,
            **measure_alignment(weights, segments, scene.inside),
            **self.compare_top(scene, segments, target, weights),
        }

    def explain_seeds(
        self, model: NamedModel, scene: Scene, segments: Segments, target: int
    ) -> list[NDArray[np.float64]]:
        """Returns LIME's weights (S,) of the segments in one mode, one per seed."""
        first_pixels = np.unique(segments, return_index=True)[1]
        options = {
            "feature_mask": segments,
            "p": P_KEPT,
            "kernel_width": KERNEL_WIDTH,
            "sampling": "independent",
            "alpha": ALPHA,
        }
        lime = build_method("lime", options, self.n_samples)
        found = []
        for seed in range(self.seed, self.seed + self.n_seeds):
            settings = ExplanationSettings(seed=seed, perturbations_per_eval=self.batch)
            ((explanation,),) = explain_all(model.session, [scene.image], [[target]], lime, settings, model.graphs)
            found.append(explanation.model_attributions.ravel()[first_pixels].astype(np.float64))
        return found

    def compare_top(self, scene: Scene, segments: Segments, target: int, weights: Weights) -> Record:
        """Returns each mode's top segments, a list per seed, and the scores as these go; None where all are top."""
        if segments.max() + 1 <= self.n_top:
            return {"top": None, "deletion": None}
        rng = scene.random(self.seed)
        orders = {mode: [descending_order(each, rng) for each in seeds] for mode, seeds in weights.items()}
        first = {mode: own[0] for mode, own in orders.items()} | {RANDOM: rng.permutation(int(segments.max()) + 1)}
        return {
            "top": {mode: [sorted(order[: self.n_top].tolist()) for order in own] for mode, own in orders.items()},
            "deletion": {model.name: self.delete(model, scene, segments, target, first) for model in self.modes},
        }

    def delete(
        self, model: NamedModel, scene: Scene, segments: Segments, target: int, orders: Mapping[str, NDArray[np.intp]]
    ) -> dict[str, float]:
        """Returns the class's mean probability in one mode while the first segments of each order go, one by one."""
        nothing = np.zeros((1, int(segments.max()) + 1), np.bool_)
        counts = np.arange(1, self.n_top + 1)
        removed = np.concatenate([nothing, *(remove_first(order, counts) for order in orders.values())])
        batches = masks_without(removed, segments, model.session.batch_size(self.batch))
        scores = np.concatenate([each[:, target] for each in model.session.masked_scores(scene.array, batches)])
        whole, curves = scores[0].astype(np.float64), scores[1:].reshape(len(orders), -1).astype(np.float64)
        means = (whole + curves.sum(axis=1)) / (1 + self.n_top)
        return dict(zip(orders, means.tolist(), strict=True))

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings: alignment, deletion and agreement, modes as rows."""
        with_top = {name: record for name, record in records.items() if record["top"] is not None}
        alignments = self.alignments(records)
        n_known = alignments[EQUAL][0].n
        tables = [self.tabulate_alignment(alignments)] if n_known else []
        charts = [self.plot(alignments)] if n_known else []
        if with_top:
            tables.append(self.tabulate_deletion(with_top))
            if self.n_seeds > 1:
                tables.append(self.tabulate_jaccard(with_top))
        return Findings(tuple(tables), tuple(charts), tuple(self.notes(records, with_top, n_known)))

    def alignments(self, records: Mapping[str, Record]) -> dict[str, tuple[Interval, Interval]]:
        """Returns the alignment and the weight on the object of each mode, and of equal weights."""
        return {
            name: (
                self.mean(record["alignment"][name] for record in records.values()),
                self.mean(record["on_object"][name] for record in records.values()),
            )
            for name in (*self.names, EQUAL)
        }

    def tabulate_alignment(self, alignments: Mapping[str, tuple[Interval, Interval]]) -> Table:
        """Returns the table of the alignment with the object by mode."""
        caption = (
            "cosine between LIME's weights of the segments and each segment's share of the object, and how much of the "
            f"weights' length lies on the object, mean of {self.n_seeds} seeds, {alignments[EQUAL][0].n} images with a "
            "known object; higher is better"
        )
        rows = tuple((name, *cells) for name, cells in alignments.items())
        return Table("alignment", caption, ("mode", "alignment", "weight on the object"), rows)

    def tabulate_deletion(self, records: Mapping[str, Record]) -> Table:
        """Returns the table of the scores with each mode's top segments deleted, read through each mode."""
        rows: list[tuple[Cell, ...]] = []
        for order in (*self.names, RANDOM):
            cells: list[Cell] = [
                self.mean(record["deletion"][reader][order] for record in records.values()) for reader in self.names
            ]
            rows.append((order, *cells))
        caption = (
            f"mean probability of the class while the top {self.n_top} segments go one by one, {len(records)} images; "
            "rows: the mode through which LIME chose them, columns: the mode through which they are removed; lower is "
            "better, within a column"
        )
        return Table("deletion", caption, ("segments of", *self.names), tuple(rows))

    def tabulate_jaccard(self, records: Mapping[str, Record]) -> Table:
        """Returns the table of the agreement of the top segments of all pairs of modes."""
        rows: list[tuple[Cell, ...]] = []
        for mode in self.names:
            cells: list[Cell] = [
                self.mean(agreement(record["top"][mode], record["top"][other]) for record in records.values())
                for other in self.names
            ]
            rows.append((mode, *cells))
        caption = (
            f"Jaccard index of the top {self.n_top} segments in explanations of different seeds, {len(records)} "
            "images; a mode with itself: how steady it is"
        )
        return Table("jaccard", caption, ("mode", *self.names), tuple(rows))

    def plot(self, alignments: Mapping[str, tuple[Interval, Interval]]) -> Chart:
        """Returns bars of the alignment, one per mode."""
        line = Line("cosine", tuple(alignments[name][0] for name in self.names))
        return Chart("alignment", "LIME alignment with the object", "mode", "cosine", self.names, (line,), kind="bar")

    def notes(self, records: Mapping[str, Record], with_top: Mapping[str, Record], n_known: int) -> Iterator[str]:
        """Yields notes on the images behind the figures for the reader."""
        if not n_known:
            yield "No object is known: there is no alignment."
        if len(with_top) < len(records):
            few = f"{len(records) - len(with_top)} of {len(records)} images have no more than {self.n_top} segments"
            yield f"{few}: Jaccard index and deletion are undefined for them."
        if with_top and self.n_seeds > 1:
            chance = np.mean([expected_jaccard(record["n_segments"], self.n_top) for record in with_top.values()])
            yield f"Two random sets of {self.n_top} segments have a Jaccard index of {chance:.3f} on average."
