"""KernelSHAP: each segment's Shapley value, its mean contribution to the score over all orders of bringing segments in.

Source: Scott M. Lundberg and Su-In Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017, theorem
2, https://arxiv.org/abs/1705.07874; the sampling is that of Christopher Musco and R. Teal Witter, "Provably Accurate
Shapley Value Estimation via Leverage Score Sampling", ICLR 2025, https://arxiv.org/abs/2410.01917.

    a = argmin over w with sum(w) = f(1) - f(0) of  sum over i of  pi_i (f(z_i) - f(0) - w . z_i)^2
    pi(z) = (S - 1) / (C(S, s) s (S - s)),  s = the number of segments that z keeps, of S

Over all z that is Shapley's value exactly; samples estimate it. Each z comes with its complement. How many segments a
sample keeps is drawn

* ``leverage``: evenly from 1 to S - 1, each size once before any comes again; a z of that size then comes up as often
  as its leverage says, which is how much it may move the fit. No z is drawn twice, and those of a size share the weight
  pi of all z of that size. Where there are enough samples for every z, the values are exact.
* ``kernel``: in proportion to pi, as published first, with equal weights and repetitions.

The sum of the values is f(1) - f(0), f(0) being the score with everything missing.

``quality`` reports the root mean square over the segments of the standard error, from the residuals of the pairs as for
LIME; a size of which every z is known adds nothing to it. Where a residual tells nothing, the fit passing through the
pair whatever its scores, what equal values would leave stands for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.mask_design import Rows
from masktool.explainers.method import Attribution, register
from masktool.explainers.segment_method import KeptSegments, SegmentMethod
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import ScoredMasks, Task
from masktool.limits import check_limit
from masktool.option_checks import check_choice, check_count

FEWEST = 3
"""Masks of one pair, and the empty one."""
SAMPLES_PER_SEGMENT = 10
FEWEST_SEGMENTS = 8
"""Samples for each segment that a budget of passes buys, but for the first segments: with more segments the sampling
error outweighs what smaller ones show, docs/evidence.md."""
SATURATED = 1e-9
"""How near to 1 the leverage of a pair is where the fit passes through its difference, whatever that is."""
FEW = "there are not enough samples for so many segments: of all values that fit the scores these are the smallest"


ScoreSets = Callable[[Iterable[Rows], int], Iterator[ScoredMasks]]
"""Scores batches of rows, of which there are as many as the number says, one pass each."""


class Estimate(NamedTuple):
    """What samples of sets tell of S features.

    Attributes:
        values: the Shapley values, (T, S).
        variances: the squares of their standard errors, (T, S).
        nothing: the scores with every feature missing, (T,).
        run: the run of samples.
        is_short: whether there are too few samples for so many features.
    """

    values: NDArray[np.float64]
    variances: NDArray[np.float64]
    nothing: NDArray[np.float64]
    run: SampleRun
    is_short: bool


@register
@dataclasses.dataclass(frozen=True)
class KernelShap(SegmentMethod):
    """Shapley value of each segment.

    Attributes:
        n_samples: the number of masks: one that keeps nothing, and the samples with their complements; None draws until
            the values are stable. More than there are count as all of them.
        sampling: how samples are drawn: ``leverage`` or, as published first, ``kernel``.
    """

    name: ClassVar[str] = "kernel-shap"
    title: ClassVar[str] = "KernelSHAP"
    meaning: ClassVar[str] = "contribution to {score}"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = "n_samples"
    most_samples: ClassVar[int] = 249
    any_rank: ClassVar[bool] = True

    n_segments: int = 50
    n_samples: int | None = None
    sampling: Literal["leverage", "kernel"] = "leverage"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples, minimum=FEWEST)
        check_choice("sampling", self.sampling, ("leverage", "kernel"))

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with a tenth as many segments as samples, or with eight."""
        return self.with_segments_for(self.most_within(task.stopping), budget, SAMPLES_PER_SEGMENT, FEWEST_SEGMENTS)

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the passes of the image as it is, and of the fewest masks."""
        return 1 + FEWEST

    def attribute(self, task: Task) -> Attribution:
        """Scores pairs of complementary sets of segments, and fits their differences."""
        segments = self.cut(task)
        n_features = int(segments.max()) + 1
        check_limit("segments", n_features, where=self.title)
        design = KeptSegments(segments)
        found = self.estimate(task, n_features, lambda rows, total: task.evaluate(rows, total, design))
        settings = self.settings(n_features, task) | {"n_samples": found.run.drawn}
        notes = tuple((*each, *([FEW] if found.is_short else [])) for each in found.run.notes())
        return Attribution(found.values[:, segments], settings, found.run.quality(), segments, notes)

    def estimate(self, task: Task, n_features: int, score: ScoreSets) -> Estimate:
        """Estimates the values of any features of which sets can be scored.

        Args:
            task: the task, whose stopping, seed and scores with nothing missing count.
            n_features: the number of features.
            score: function that scores batches of rows whose ``kept`` (M, S) says which features are kept.
        """
        samples = self.draw(self.most_within(task.stopping), n_features, task.seed)
        rows = coalitions(samples)
        run = SampleRun(
            task.stopping,
            self.n_samples and min(self.n_samples, len(rows)),
            min(self.most_within(task.stopping), len(rows)),
        )

        def batches() -> Iterator[Rows]:
            for piece in run.pieces(task.perturbations_per_eval):
                yield {"kept": rows[piece.start : piece.stop]}

        scores = np.zeros((0, len(task.targets)))
        for batch in score(batches(), run.most):
            scores = np.concatenate([scores, batch.scores])
            if run.pauses:
                whole = scores[: whole_pairs(run.drawn)]
                fit = fit_differences(self.weigh(samples[: len(whole) // 2]))
                found = shapley_values(fit, task.base - scores[0], whole[1::2] - whole[2::2])
                run.judge(found.values, found.variances)
        return Estimate(found.values, found.variances, scores[0], run, fit.is_short)

    def draw(self, count: int, n_features: int, seed: int) -> NDArray[np.bool_]:
        """Returns the samples for a number of masks, (m, S); a larger number goes on behind the same ones."""
        draw = draw_by_kernel if self.sampling == "kernel" else draw_by_leverage
        return draw((count - 1) // 2, n_features, np.random.default_rng(seed))

    def weigh(self, kept: NDArray[np.bool_]) -> Pairs:
        """Returns samples (m, S) with their weights."""
        if self.sampling == "kernel":
            return Pairs(kept, np.ones(len(kept)), np.zeros(len(kept)))
        return weigh_by_size(kept)


def whole_pairs(count: int) -> int:
    """Returns how many of the first masks make up the empty one and whole pairs."""
    return count - (count - 1) % 2


class Pairs(NamedTuple):
    """Samples, each of which stands for its complement too.

    Attributes:
        kept: which segments the first of each pair keeps, (m, S) bool.
        weights: the weight of each pair in the regression, (m,).
        known: the share of all pairs of the same size that is among the samples, (m,).
    """

    kept: NDArray[np.bool_]
    weights: NDArray[np.float64]
    known: NDArray[np.float64]


def draw_by_leverage(count: int, n_features: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns different samples (m, S), their sizes spread evenly; all that there are, if ``count`` is larger."""
    found: dict[bytes, NDArray[np.bool_]] = {}
    drawn: Counter[int] = Counter()
    while len(found) < count and any(drawn[size] < count_pairs(size, n_features) for size in half_sizes(n_features)):
        for size in random.permutation(np.arange(1, n_features)).tolist():
            half = min(size, n_features - size)
            while len(found) < count and drawn[half] < count_pairs(half, n_features):
                kept = draw_subset(size, n_features, random)
                first = kept if (2 * size, kept[0]) < (n_features, True) else ~kept
                if (key := first.tobytes()) not in found:
                    found[key] = kept
                    drawn[half] += 1
                    break
    return np.array(list(found.values()), bool).reshape(-1, n_features)


def draw_by_kernel(count: int, n_features: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns samples (m, S) whose sizes are drawn in proportion to the Shapley kernel; some may be the same."""
    sizes = half_sizes(n_features)
    weights = np.array([weight_of_size(size, n_features) for size in sizes])
    places = np.cumsum(weights / weights.sum())
    kept = [
        draw_subset(sizes[min(int(np.searchsorted(places, random.random())), len(sizes) - 1)], n_features, random)
        for _ in range(count if len(sizes) else 0)
    ]
    return np.array(kept, bool).reshape(-1, n_features)


def weigh_by_size(kept: NDArray[np.bool_]) -> Pairs:
    """Returns samples of which those of a size share the Shapley kernel's sum over all sets of that size."""
    n_features = kept.shape[1]
    halves = np.minimum(kept.sum(axis=1), n_features - kept.sum(axis=1)).tolist()
    drawn = Counter(halves)
    weights = [weight_of_size(half, n_features) / drawn[half] for half in halves]
    known = [drawn[half] / count_pairs(half, n_features) for half in halves]
    return Pairs(kept, np.array(weights), np.array(known))


def draw_subset(size: int, n_features: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns a random set of ``size`` segments, (S,) bool."""
    return random.permutation(n_features) < size


def half_sizes(n_features: int) -> range:
    """Returns the sizes of the smaller sets of all pairs."""
    return range(1, n_features // 2 + 1)


def count_pairs(half: int, n_features: int) -> int:
    """Returns how many pairs there are whose smaller set has a size."""
    sets = math.comb(n_features, half)
    return sets // 2 if 2 * half == n_features else sets


def weight_of_size(half: int, n_features: int) -> float:
    """Returns the Shapley kernel's sum over all sets of a size, and of the complements' size where it is another."""
    weight = (n_features - 1) / (half * (n_features - half))
    return weight if 2 * half == n_features else 2 * weight


def coalitions(kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the rows of the masks (1 + 2 m, S): nothing kept, then each sample and its complement."""
    rows = np.zeros((1 + 2 * len(kept), kept.shape[1]), np.float32)
    rows[1::2], rows[2::2] = kept, ~kept
    return rows


class PairFit(NamedTuple):
    """The regression on S segments of the differences of m pairs, before any score is known.

    Attributes:
        shares: what the differences are where all segments contribute alike, as shares of the sum of all, (m,).
        centred: the design: 1 for a segment that the first of a pair keeps, else -1, without ``shares``, (m, S).
        solution: the matrix (S, m) that takes differences without those of equal segments to the values' deviations.
        known: the share of all pairs of the same size that is among the samples, (m,).
    """

    shares: NDArray[np.float64]
    centred: NDArray[np.float64]
    solution: NDArray[np.float64]
    known: NDArray[np.float64]

    @property
    def spared(self) -> NDArray[np.float64]:
        """The part of each pair's own difference that does not go into its fitted one, 1 less its leverage, (m,)."""
        return 1 - np.einsum("ms,sm->m", self.centred, self.solution)

    @property
    def told(self) -> NDArray[np.bool_]:
        """Whether a pair's residual tells anything: the fit does not pass through its difference anyway, (m,)."""
        return self.spared > SATURATED

    @property
    def inflation(self) -> NDArray[np.float64]:
        """What residuals are multiplied by for the standard error, (m,); 0 where every pair of the size is known."""
        return np.sqrt(1 - self.known) / np.where(self.told, self.spared, 1)

    @property
    def is_short(self) -> bool:
        """Whether the fit passes through differences although others of the same size are unknown."""
        return not self.told[self.known < 1].all()


def fit_differences(pairs: Pairs) -> PairFit:
    """Returns the regression that the constraint on the sum leaves.

    The two equations of a pair z and 1 - z have the same weight, and differ in sign but for constants, so that their
    least squares are those of one: f(z) - f(1 - z) = w . (2 z - 1). With w = (f(1) - f(0)) / S + u and sum(u) = 0, of
    each row only what deviates from its mean counts.
    """
    signs = 2 * pairs.kept.astype(np.float64) - 1
    shares = signs.mean(axis=1)
    centred = signs - shares[:, None]
    roots = np.sqrt(pairs.weights)
    solution = np.linalg.pinv(centred * roots[:, None]) * roots
    return PairFit(shares, centred, solution, pairs.known)


class ShapleyValues(NamedTuple):
    """Shapley values of S segments for T targets, and their squared standard errors, (T, S) each."""

    values: NDArray[np.float64]
    variances: NDArray[np.float64]


def shapley_values(fit: PairFit, total: NDArray[np.float64], differences: NDArray[np.float64]) -> ShapleyValues:
    """Returns the values for T targets.

    Args:
        fit: the regression.
        total: the sum of the values, f(1) - f(0), (T,).
        differences: the scores of the first of each pair without those of its complement, (m, T).
    """
    unlike = differences - np.outer(fit.shares, total)
    deviations = fit.solution @ unlike  # (S, T)
    values = total / fit.centred.shape[1] + deviations
    fitted = (fit.centred * fit.told[:, None]) @ deviations  # else what equal values leave counts
    variances = np.square(fit.solution) @ np.square((unlike - fitted) * fit.inflation[:, None])
    return ShapleyValues(values.T, variances.T)
