"""What each group of bands contributes to a score: what is lost without it, and its Shapley value.

    left out:  l_i = f(all) - f(all but i)
    Shapley:   v_i = sum over the sets S without i of  |S|! (g - |S| - 1)! / g!  (f(S and i) - f(S))

f(S) is the target's score of the image in which the bands of all groups that are not in S are missing
(:mod:`masktool.explainers.bands.filling`); bands of no group are always there. The Shapley values sum to f(all) -
f(none). With up to 8 groups all 2^g sets are scored, and the values are exact; with more, KernelSHAP's samples of sets
estimate them (:mod:`masktool.explainers.methods.kernel_shap`).

Source: Lloyd S. Shapley, "A value for n-person games", 1953.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.bands.filling import BandFill
from masktool.explainers.bands.groups import BandGroup
from masktool.explainers.mask_design import MasksInMemory, Rows
from masktool.explainers.methods.kernel_shap import FEWEST, KernelShap
from masktool.explainers.task import ScoredMasks, Task
from masktool.messages import parameter
from masktool.progress import Counting

MOST_EXACT = 8
"""Most groups of which all sets are scored: 256 passes."""
FEW_SETS = "there are not enough samples for so many groups: of all values that fit the scores these are the smallest"
ScoreImages = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Scores images (M, ...) for every target, (M, T)."""


@dataclasses.dataclass(frozen=True)
class Importance:
    """What g groups of bands contribute to the scores of T targets.

    Attributes:
        shapley: the Shapley values, (T, g).
        errors: their standard errors, (T, g); 0 where the values are exact.
        left_out: what is lost without each group alone, (T, g).
        nothing: the scores with all groups missing, (T,).
        is_exact: whether all sets were scored.
        n_samples: the number of sets that Shapley values were made of.
        notes: what the reader of each target's values must know.
    """

    shapley: NDArray[np.float64]
    errors: NDArray[np.float64]
    left_out: NDArray[np.float64]
    nothing: NDArray[np.float64]
    is_exact: bool
    n_samples: int
    notes: tuple[tuple[str, ...], ...] = ()


class SetScores:
    """Scores sets of groups, none twice.

    Args:
        fill: the image, and what stands in missing bands.
        groups: the groups.
        score: function that scores images.
        base: the scores with nothing missing, (T,), which no pass is run for.
        batch: the number of images in one pass.
    """

    def __init__(
        self, fill: BandFill, groups: Sequence[BandGroup], score: ScoreImages, base: NDArray[np.float64], batch: int
    ) -> None:
        self.fill, self.score, self.batch = fill, score, batch
        self.members = np.array([np.isin(np.arange(fill.channels), group.bands) for group in groups])  # (g, C)
        self._known = {np.ones(len(groups), bool).tobytes(): base}

    def of(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Returns the scores (M, T) of sets (M, g); True keeps a group."""
        new = list({row.tobytes(): row for row in kept if row.tobytes() not in self._known}.values())
        for start in range(0, len(new), self.batch):
            part = np.array(new[start : start + self.batch])
            missing = ~part @ self.members  # a band is in one group at most
            for row, scores in zip(part, self.score(self.fill.keep(~missing)), strict=True):
                self._known[row.tobytes()] = scores
        return np.array([self._known[row.tobytes()] for row in kept])


def measure_importance(
    task: Task, fill: BandFill, groups: Sequence[BandGroup], score: ScoreImages, counting: Counting, kernel: KernelShap
) -> Importance:
    """Measures what each group contributes to the score of every target of a task.

    Args:
        task: the task: targets, scores with nothing missing, seed, batch, when to stop.
        fill: the image, and what stands in missing bands.
        groups: the groups.
        score: function that scores images.
        counting: function that starts to count up to a number of sets.
        kernel: how sets are sampled where not all are scored.
    """
    sets = SetScores(fill, groups, score, task.base, task.perturbations_per_eval)
    budget = task.stopping.budget
    affordable = budget is None or budget >= 2 ** len(groups)
    if len(groups) <= MOST_EXACT and kernel.n_samples is None and affordable:
        return measure_exactly(sets, len(groups), task, counting)
    return estimate_by_samples(sets, len(groups), task, counting, kernel)


def measure_exactly(sets: SetScores, count: int, task: Task, counting: Counting) -> Importance:
    """Returns what each of ``count`` groups contributes, from the scores of all sets."""
    rows = all_sets(count)
    scores = np.zeros((0, len(task.targets)))
    with counting(len(rows)) as advance:
        for piece in task.batch_ranges(len(rows)):
            scores = np.concatenate([scores, sets.of(rows[piece.start : piece.stop])])
            advance(len(piece))
    shapley = shapley_of_all(scores)
    left_out = scores[-1] - scores[[2**count - 1 - 2**group for group in range(count)]]
    return Importance(shapley.T, np.zeros_like(shapley.T), left_out.T, scores[0], True, len(rows))


def all_sets(count: int) -> NDArray[np.bool_]:
    """Returns all sets of groups, (2^g, g): that of index i keeps group k where bit k of i is 1."""
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)


def shapley_of_all(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the Shapley values (g, T) from the scores (2^g, T) of all sets, in the order of :func:`all_sets`."""
    count = len(scores).bit_length() - 1
    indices = np.arange(len(scores))
    sizes = all_sets(count).sum(axis=1)
    weights = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.zeros((count, scores.shape[1]))
    for group in range(count):
        without = indices[indices >> group & 1 == 0]
        gains = scores[without | 1 << group] - scores[without]
        values[group] = weights[sizes[without]] @ gains
    return values


def estimate_by_samples(sets: SetScores, count: int, task: Task, counting: Counting, kernel: KernelShap) -> Importance:
    """Returns what each of ``count`` groups contributes, estimated from samples of sets behind those that lack one."""
    stopping = task.stopping
    if stopping.budget is not None:
        if stopping.budget < 1 + count + FEWEST:
            raise MasktoolError(
                "a budget that is too small",
                where=parameter("budget", stopping.budget),
                expected=f"at least {1 + count + FEWEST}, for {count} groups",
            )
        stopping = dataclasses.replace(stopping, budget=stopping.budget - count)
    left_out = task.base - sets.of(~np.eye(count, dtype=bool))

    def score(batches: Iterable[Rows], total: int) -> Iterator[ScoredMasks]:
        with counting(total) as advance:
            for rows in batches:
                kept = rows["kept"]
                yield ScoredMasks(MasksInMemory(kept), sets.of(kept.astype(bool)))
                advance(len(kept))

    found = kernel.estimate(dataclasses.replace(task, stopping=stopping), count, score)
    return Importance(
        found.values,
        np.sqrt(found.variances),
        left_out.T,
        found.nothing,
        found.run.drawn >= 2**count - 1,
        found.run.drawn,
        tuple((*each, *([FEW_SETS] if found.is_short else [])) for each in found.run.notes()),
    )
