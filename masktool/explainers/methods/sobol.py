"""Sobol attribution: the share of the score's variance, under random masks, that each cell of a grid has a part in.

Source: Thomas Fel, Remi Cadene, Mathieu Chalvidal, Matthieu Cord, David Vigouroux and Thomas Serre, "Look at the
Variance! Efficient Black-box Explanations with Sobol-based Sensitivity Analysis", NeurIPS 2021, equations 2 and 3,
https://arxiv.org/abs/2111.04138. The estimator is Jansen's (M. J. W. Jansen, "Analysis of Variance Designs for Model
Output", Computer Physics Communications 117, 1999).

    a(cell i) = 1 / (2 N V) * sum over n of  (f(A_n) - f(C_n^i))^2

A and B are N masks each on a g x g grid: the two halves of the N points of a low-discrepancy sequence with 2 g^2 axes.
C_n^i is A_n with cell i taken from B_n, and V is the variance of all f(A_n) and f(B_n). That is the total index: what
cell i does alone and together with others. Cells that work together count their common part each, so that the sum may
be above 1. A map says how much depends on a cell, and not in which direction.

Two things differ from the paper unless asked for:

* ``binary``: the masks are cut at .5, where the paper's are soft. C_n^i then is A_n for about half of the cells and
  costs no pass, so that N (g^2 + 2) passes become half as many; and behind layer and partial masking a soft value
  weighs in means and fills but hides nothing.
* The sequence is Halton's with random digits. The first points of a Sobol sequence with so many axes are few patterns
  and their complements: on the built-in network's sample 8 of them gave a rank correlation of .47 with the map of 128
  random points, 8 random points .69, and 8 of Halton's .72 and .78 (means of 6 to 8 seeds).

``quality`` reports the root mean square over the cells of the indices' standard error, as that of a ratio of means over
the points, which are counted as if they were independent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.halton_sequence import halton_points
from masktool.explainers.mask_design import Rows
from masktool.explainers.mask_figures import cut_masks
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.segment_method import KeptSegments
from masktool.explainers.segmentation import Segments, square_cells
from masktool.explainers.stopping import SampleRun, Stopping
from masktool.explainers.task import Task
from masktool.messages import parameter
from masktool.option_checks import check_choice, check_count

FEWEST_POINTS = 2
"""One point has no standard error."""
POINTS_WITHIN = 3
"""Points that a budget should reach for, or the grid becomes coarser: of two the indices are mostly noise."""
MASKS_PER_CELL = 0.5
"""Share of the cells whose mask C is a mask of its own, on average, where masks are cut."""
ROUNDING = float(np.finfo(np.float32).eps)
"""Spread of the scores, as a share of the largest, up to which all are one number: a share of it would be noise."""


@register
@dataclasses.dataclass(frozen=True)
class Sobol(Method):
    """Total Sobol index of each cell of a grid.

    Attributes:
        n_points: the number N of points of the sequence, each of which costs up to g^2 + 2 passes, or about half as
            many where masks are cut; None draws until the map is stable. The paper uses 32.
        grid_size: the number g of cells per side of the grid; the paper uses 11.
        binary: whether the masks are cut at .5; the paper's are not.
    """

    name: ClassVar[str] = "sobol"
    title: ClassVar[str] = "Sobol"
    meaning: ClassVar[str] = "share of the variance of {score}"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_points"
    most_samples: ClassVar[int] = 8

    n_points: int | None = None
    grid_size: int = 7
    binary: bool = True

    def __post_init__(self) -> None:
        if self.n_points is not None:
            check_count("n_points", self.n_points, minimum=FEWEST_POINTS)
        check_count("grid_size", self.grid_size)
        check_choice("binary", self.binary, (True, False))

    def within(self, budget: int, task: Task) -> Self:  # noqa: ARG002
        """Returns the method with a grid so coarse that the budget reaches for a few points, on average."""
        if not self.leaves_open("grid_size"):
            return self
        share = MASKS_PER_CELL if self.binary else 1
        cells = ((budget - 1) / POINTS_WITHIN - 2) / share
        return dataclasses.replace(self, grid_size=min(self.grid_size, max(1, math.isqrt(max(1, int(cells))))))

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the passes of the image as it is, and of two points without any mask C; the rest is drawn."""
        return 1 + 2 * FEWEST_POINTS

    def attribute(self, task: Task) -> Attribution:
        """Scores the masks of all points, and compares those that differ in one cell."""
        cells = self.cut(task)
        design = self.design(self.most_points(task.stopping), int(cells.max()) + 1, task.seed)
        most = self.most_points(task.stopping)
        run = SampleRun(design.budget_of_points(task.stopping), self.n_points, most, FEWEST_POINTS)

        def batches() -> Iterator[Rows]:
            for points in run.pieces(1):
                rows = design.masks(points)
                for start in range(0, len(rows), task.perturbations_per_eval):
                    yield {"kept": rows[start : start + task.perturbations_per_eval]}

        scores = np.zeros((0, len(task.targets)))
        for batch in task.evaluate(batches(), design.start(run.most), KeptSegments(cells)):
            scores = np.concatenate([scores, batch.scores])
            if len(scores) == design.start(run.drawn) and run.drawn > 1 and run.pauses:
                found = total_indices(scores[design.rows[: run.drawn]])
                run.judge(found.values, np.square(found.errors))
        settings = dataclasses.asdict(self) | {"n_points": run.drawn}
        return Attribution(found.values[:, cells], settings, run.quality(), cells, run.notes())

    def cut(self, task: Task) -> Segments:
        """Returns the cells of the grid."""
        return square_cells(task.image_size, self.grid_size)

    def most_points(self, stopping: Stopping) -> int:
        """Returns the largest number of points whose masks may be scored: each costs two passes or more."""
        most = self.most_within(stopping)
        return most if stopping.budget is None else max(FEWEST_POINTS, min(most, stopping.budget // 2))

    def design(self, n_points: int, n_cells: int, seed: int) -> PointMasks:
        """Returns the masks of some points, and where each of A, B and C stands among them."""
        points = halton_points(n_points, 2 * n_cells, np.random.default_rng(seed))
        first, second = np.split(cut_masks(points) if self.binary else points.astype(np.float32), 2, axis=1)
        return exchange_cells(first, second)


class PointMasks(NamedTuple):
    """The different masks of N points on S cells.

    Attributes:
        first: how much of each cell the masks A keep, (N, S) float32.
        second: the same of the masks B.
        rows: the row of ``kept`` that holds A, B and C of every cell, (N, 2 + S).
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    rows: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.float32]:
        """How much of each cell a mask keeps, (M, S) float32."""
        return self.masks(range(len(self.rows)))

    def masks(self, points: range) -> NDArray[np.float32]:
        """Returns the rows of ``kept`` that are the masks of some points in a row; others are not made."""
        here = slice(points.start, points.stop)
        first, second = self.first[here], self.second[here]
        n_cells = first.shape[1]
        kept = np.repeat(first[:, None], 2 + n_cells, axis=1)
        kept[:, 1] = second
        own = np.arange(n_cells)
        kept[:, 2 + own, own] = second
        return kept[which_differ(first, second)]

    def start(self, point: int) -> int:
        """Returns the row at which the masks of a point start, those of all points before it ending there."""
        return int(self.rows[point, 0] if point < len(self.rows) else self.rows[-1].max() + 1)

    def budget_of_points(self, stopping: Stopping) -> Stopping:
        """Returns when to stop, with the budget of passes as one of points.

        Raises:
            MasktoolError: the budget does not reach for two points, which a standard error needs.
        """
        if stopping.budget is None:
            return stopping
        within = max(point for point in range(len(self.rows) + 1) if self.start(point) < stopping.budget)
        if within < FEWEST_POINTS:
            raise MasktoolError(
                "the budget does not reach for two points of the sequence",
                where=parameter("budget", stopping.budget),
                expected=f"at least {self.start(FEWEST_POINTS) + 1}",
            )
        return dataclasses.replace(stopping, budget=within + 1)


def exchange_cells(first: NDArray[np.float32], second: NDArray[np.float32]) -> PointMasks:
    """Returns the masks A (N, S), B (N, S), and C: A with one cell taken from B, which where both agree is A itself."""
    differs = which_differ(first, second)
    rows = (np.cumsum(differs) - 1).reshape(differs.shape)
    return PointMasks(first, second, np.where(differs, rows, rows[:, :1]))


def which_differ(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which of A, B and C of every cell are masks of their own, (N, 2 + S): all but a C that is A itself."""
    return np.concatenate([np.ones((len(first), 2), bool), first != second], axis=1)


class Indices(NamedTuple):
    """Total indices of S cells for T targets, and their standard errors: (T, S) float64 each."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]


def total_indices(scores: NDArray[np.float64]) -> Indices:
    """Returns the total indices from the scores (N, 2 + S, T) under A, B, and C of every cell.

    Where the scores hardly differ the indices are 0.
    """
    n_points = len(scores)
    pairs = scores[:, :2]
    spreads = np.square(pairs - pairs.mean(axis=(0, 1))).mean(axis=1)  # (N, T), whose mean is V
    effects = np.square(scores[:, :1] - scores[:, 2:]) / 2  # (N, S, T)
    variance = spreads.mean(axis=0)
    flat = variance <= np.square(ROUNDING * np.abs(pairs).max(axis=(0, 1)))
    values = effects.mean(axis=0) / np.where(flat, 1, variance)
    values[:, flat] = 0
    gaps = (effects - values * spreads[:, None]) / np.where(flat, 1, variance)
    errors = np.sqrt(np.square(gaps).sum(axis=0) / (n_points * (n_points - 1)))
    return Indices(values.T, errors.T)
