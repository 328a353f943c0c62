"""Sensitivity-n: a map's sum over a random part of the image against the drop of the score without that part.

Source: Marco Ancona, Enea Ceolini, Cengiz Öztireli and Markus Gross, "Towards better understanding of gradient-based
attribution methods for Deep Neural Networks", ICLR 2018, section 3, https://arxiv.org/abs/1711.06104. For every n, over
random subsets S of n features:

    Pearson's correlation of  sum over i in S of a_i  with  f(x) - f(x without S)

Published for single pixels set to 0, on the network's activation before the softmax. Here the features are the cells of
a grid, since pixels removed here and there leave a photograph as recognisable as before; a cell's attribution is the
sum over its pixels; cells go missing as the model's masking has it; and f is the probability, which the maps explain.
With as many cells as pixels the features are the published ones. The figure is the mean over n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.metrics.faithfulness.correlation import correlate
from masktool.evaluation.metrics.faithfulness.metric import Curve, Figure, Measured, Metric, check_shares, register
from masktool.evaluation.metrics.faithfulness.trial import SCORE_ROUNDING, Trial
from masktool.evaluation.metrics.means import mean_of_defined
from masktool.explainers.mask_design import Masks
from masktool.option_checks import check_count

Subsets = NDArray[np.bool_]
"""M subsets of F features, (M, F): true for the features that go missing."""


@register
@dataclasses.dataclass(frozen=True)
class SensitivityN(Metric):
    """Correlation of sums of attributions with drops of the score.

    Attributes:
        shares: values of n, each as a share of the cells; the paper ends at .8.
        n_subsets: number of subsets for each n.
        cells: number of cells per side of the grid; no more than the side has pixels.
    """

    name: ClassVar[str] = "sensitivity-n"
    title: ClassVar[str] = "Sensitivity-n"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("sensitivity-n", "correlation of attribution sums with drops of the score, mean over n", "higher"),
    )

    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    n_subsets: int = 50
    cells: int = 16

    def __post_init__(self) -> None:
        check_shares("shares", self.shares)
        check_count("n_subsets", self.n_subsets, minimum=3)  # two points always correlate
        check_count("cells", self.cells, minimum=2)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curve of the correlation by n."""
        x = tuple(map(float, self.shares))
        return (Curve("sensitivity-n", "Sensitivity-n", "share of the cells removed", "correlation", x),)

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges all maps on the same subsets, so that their number costs no forward passes."""
        labels = grid_labels(trial.size, self.cells)
        n_cells, random = int(labels.max()) + 1, trial.random(self.name)
        sums = {name: np.bincount(labels.ravel(), weights=each.ravel()) for name, each in trial.maps.items()}
        found: dict[str, list[float | None]] = {name: [] for name in trial.maps}
        for share in self.shares:
            subsets = draw_subsets(random, self.n_subsets, n_cells, max(1, round(share * n_cells)))
            drops = trial.full - trial.under_masks(self.masks(trial, subsets, labels))
            indifferent = np.ptp(drops) <= SCORE_ROUNDING
            for name, each in sums.items():
                found[name].append(None if indifferent else correlate(subsets.astype(np.float64) @ each, drops))
        return {
            name: Measured({self.name: mean_of_defined(values)}, {self.name: values}) for name, values in found.items()
        }

    @staticmethod
    def masks(trial: Trial, subsets: Subsets, labels: NDArray[np.intp]) -> Iterator[Masks]:
        """Yields the masks that hide the subsets, a batch at a time."""
        for piece in trial.pieces(len(subsets)):
            yield (~subsets[piece][:, labels])[:, None].astype(np.float32)


def grid_labels(size: tuple[int, int], cells: int) -> NDArray[np.intp]:
    """Returns the label (h, w) of every pixel's cell in a grid of ``cells`` per side, from 0 without gaps."""
    rows, columns = (np.arange(side) * min(cells, side) // side for side in size)
    labels: NDArray[np.intp] = rows[:, None] * (columns[-1] + 1) + columns
    return labels


def draw_subsets(random: np.random.Generator, n_subsets: int, n_features: int, n: int) -> Subsets:
    """Returns random subsets of n features, every such subset equally likely."""
    ranks = random.random((n_subsets, n_features)).argsort(axis=1).argsort(axis=1)
    return ranks < n
