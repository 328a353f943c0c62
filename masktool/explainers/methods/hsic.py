"""HSIC attribution: how much the score depends on whether a cell is kept, measured by kernels.

Source: Paul Novello, Thomas Fel and David Vigouroux, "Making Sense of Dependence: Efficient Black-box Explanations
Using Dependence Measure", NeurIPS 2022, section 3, https://arxiv.org/abs/2206.06219.

    a(cell i) = tr(K_i H L H) / (n - 1)^2

Each of n masks keeps the cells of a g x g grid at random, each with probability p. K_i(a, b) is 1/2 where masks a and b
agree about cell i, else -1/2; L(a, b) = exp(-(f_a - f_b)^2 / (2 s^2)), s the median of |f_a - f_b| over all pairs of
masks; H subtracts means. That is the Hilbert-Schmidt independence criterion of cell i and the score: 0 for cells
without influence, as n grows, and above 0 for any kind of influence, whatever its direction.

With z_i = 1 where cell i is kept, else -1, K_i is half the product of z_i with itself, so that the trace is half of
z_i' H L H z_i; only a block of rows of L is ever held.

``quality`` reports the root mean square over the cells of the standard error, which is that of a mean over all pairs
of masks: its variance is 4 / n times the variance, among the masks, of each one's mean over its pairs (W. Hoeffding, "A
Class of Statistics with Asymptotically Normal Distribution", Annals of Mathematical Statistics 19, 1948). For cells
without influence it is too large, by up to a factor of the root of 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.mask_design import Rows, coarsen_grid
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.segment_method import KeptSegments
from masktool.explainers.segmentation import Segments, square_cells
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import Task
from masktool.option_checks import check_count, check_real

FEWEST = 2
"""Masks: dependence is measured between pairs."""
BLOCK = 256
"""Most rows of the kernel matrix that are held at a time."""
BLOCK_VALUES = 1 << 18
"""Most values of it that are held, unless one row has more: 2 MB, however many masks there are."""


@register
@dataclasses.dataclass(frozen=True)
class Hsic(Method):
    """Dependence between the score and whether a cell is kept.

    Attributes:
        n_masks: the number of masks; None draws until the map is stable. The paper uses 768 to 1536.
        p: the probability that a cell is kept.
        grid_size: the number of cells per side of the grid.
    """

    name: ClassVar[str] = "hsic"
    title: ClassVar[str] = "HSIC"
    meaning: ClassVar[str] = "dependence of {score}"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_masks"
    most_samples: ClassVar[int] = 248

    n_masks: int | None = None
    p: float = 0.5
    grid_size: int = 7

    def __post_init__(self) -> None:
        if self.n_masks is not None:
            check_count("n_masks", self.n_masks, minimum=FEWEST)
        check_real("p", self.p, above=0, below=1)
        check_count("grid_size", self.grid_size)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with a grid of a quarter as many cells as passes: docs/evidence.md."""
        if not self.leaves_open("grid_size"):
            return self
        n_passes = min(1 + self.most_within(task.stopping), budget)
        return dataclasses.replace(self, grid_size=coarsen_grid(self.grid_size, n_passes, per_cell=4))

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the passes of the image as it is and of two masks, between which dependence is measured."""
        return 1 + FEWEST

    def attribute(self, task: Task) -> Attribution:
        """Scores random masks, and compares for each cell which masks agree about it with which scores are alike."""
        cells = self.cut(task)
        run = SampleRun(task.stopping, self.n_masks, self.most_within(task.stopping))
        kept = self.draw(run.most, int(cells.max()) + 1, task.seed)

        def batches() -> Iterator[Rows]:
            for piece in run.pieces(task.perturbations_per_eval):
                yield {"kept": kept[piece.start : piece.stop]}

        scores = np.zeros((0, len(task.targets)))
        for batch in task.evaluate(batches(), run.most, KeptSegments(cells)):
            scores = np.concatenate([scores, batch.scores])
            if run.pauses:
                found = [dependence(kept[: run.drawn], column) for column in scores.T]
                values = np.stack([each.values for each in found])
                run.judge(values, np.stack([each.variances for each in found]))
        settings = dataclasses.asdict(self) | {"n_masks": run.drawn}
        return Attribution(values[:, cells], settings, run.quality(), cells, run.notes())

    def cut(self, task: Task) -> Segments:
        """Returns the cells of the grid."""
        return square_cells(task.image_size, self.grid_size)

    def draw(self, count: int, n_cells: int, seed: int) -> NDArray[np.float32]:
        """Returns which cells each mask keeps, (count, n_cells) of 0 and 1."""
        return (np.random.default_rng(seed).random((count, n_cells)) < self.p).astype(np.float32)


class Dependence(NamedTuple):
    """The criterion of each of S cells and one target, and its variance: (S,) float64 each."""

    values: NDArray[np.float64]
    variances: NDArray[np.float64]


def dependence(kept: NDArray[np.float32], scores: NDArray[np.float64]) -> Dependence:
    """Returns the criterion from which cells masks keep (n, S) and the scores (n,) under them."""
    n_masks = len(scores)
    signs = centred_signs(kept)
    width = median_distance(scores)
    sums = np.concatenate([similarity(scores[rows], scores, width) @ signs for rows in blocks(n_masks)])
    own = signs * (sums - sums.mean(axis=0)) / (2 * (n_masks - 1) ** 2)  # what each mask adds, with all of its pairs
    return Dependence(own.sum(axis=0), 4 * n_masks * np.var(own, axis=0))


def centred_signs(kept: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns H z of every cell, (n, S): 1 where a mask keeps the cell, else -1, without the mean over the masks."""
    signs = 2 * kept.astype(np.float64) - 1
    return signs - signs.mean(axis=0)


def blocks(count: int) -> Iterator[slice]:
    """Yields slices that cut the rows of a kernel matrix (count, count) into blocks."""
    rows = max(1, min(BLOCK, BLOCK_VALUES // count))
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def similarity(some: NDArray[np.float64], scores: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Returns the Gaussian kernel (m, n) of some scores (m,) and all; of width 0 its limit, 1 for equal scores."""
    kernel = some[:, None] - scores
    if width == 0:
        return (kernel == 0).astype(np.float64)
    kernel /= width
    np.square(kernel, out=kernel)
    kernel /= -2
    return np.exp(kernel, out=kernel)


def median_distance(scores: NDArray[np.float64]) -> float:
    """Returns the median of the distances between all pairs of scores, without holding them.

    The distance of a rank is searched by halves: how many pairs are within a distance, the sorted scores tell.
    """
    ordered = np.sort(scores)
    n_pairs = len(ordered) * (len(ordered) - 1) // 2
    middle = {(n_pairs + 1) // 2, n_pairs // 2 + 1}  # one rank, or the two whose mean the median is
    return float(np.mean([ranked_distance(ordered, rank) for rank in middle]))


def ranked_distance(ordered: NDArray[np.float64], rank: int) -> float:
    """Returns the distance of a rank, from 1, among those of all pairs of sorted values, up to float64's rounding."""
    later = np.arange(1, len(ordered) + 1)

    def pairs_within(distance: float) -> int:
        return int((np.searchsorted(ordered, ordered + distance, side="right") - later).sum())

    low, high = 0.0, float(ordered[-1] - ordered[0])
    if pairs_within(low) >= rank:
        return low
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if pairs_within(middle) >= rank else (middle, high)
    return high
