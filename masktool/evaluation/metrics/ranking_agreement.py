"""How far two ways of measuring rank the same maps alike, such as one measure under two occlusion strategies.

    Kendall's tau-b = (C - D) / sqrt((n - t_1) (n - t_2))      over the n pairs of maps, t tied in either ranking
    Spearman's rho  = Pearson's correlation of the ranks       maps of equal value share the mean of their ranks

C pairs of maps stand in the same order in both rankings, D in opposite ones; what is ranked are the means over the
images. Both are 1 for the same ranking, -1 for the reverse. The intervals resample images, the same ones on both sides.
A resample is noisier than the whole set, and noise lowers an agreement, so the intervals lean to the low side.

Sources: M. G. Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 33, 1945; C. Spearman, "The Proof and
Measurement of Association between Two Things", 1904. Rankings of occlusion strategies are compared in this way by
Blücher, Vielhaben and Strodthoff, https://arxiv.org/abs/2401.06654.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval, interval_of
from masktool.evaluation.findings import Cell, Table

FEWEST_MAPS = 3
"""Of two maps either ranking is the other one or its reverse, which says nothing of rankings."""


class RankAgreement(NamedTuple):
    """Agreement of two rankings, from -1 to 1."""

    kendall: Interval
    spearman: Interval


def rank_agreement(first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0) -> RankAgreement:
    """Returns how far two measures rank maps alike, by their means over the images.

    Args:
        first: figures (N, K) of K maps on N images, by one measure.
        second: the same by the other measure.
        seed: seed of the resamples.

    Returns:
        The agreement over the images on which every figure is defined, ``n`` of them; NaN where a ranking is one tie.
    """
    defined = ~(np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1))
    one, other = first[defined], second[defined]
    return RankAgreement(
        interval_of(lambda weights: kendall_tau(weights @ one, weights @ other), len(one), seed),
        interval_of(lambda weights: spearman_rho(weights @ one, weights @ other), len(one), seed),
    )


def tabulate_agreement(
    name: str,
    figures: Sequence[str],
    models: Sequence[str],
    values: Callable[[str, str], NDArray[np.float64]],
    seed: int,
) -> Table:
    """Returns the table of how far each pair of models ranks the same maps alike by each figure.

    Args:
        name: the table's name.
        figures: names of the figures.
        models: names of the models that the maps are measured through, two at least.
        values: function from a figure and a model to the figures (N, K) of K maps on N images.
        seed: seed of the resamples.
    """
    rows: list[tuple[Cell, ...]] = []
    for figure in figures:
        for one, other in itertools.combinations(models, 2):
            found = rank_agreement(values(figure, one), values(figure, other), seed)
            rows.append((figure, f"{one}, {other}", found.kendall, found.spearman))
    n_maps = values(figures[0], models[0]).shape[1]
    caption = (
        f"How far two models rank the {n_maps} maps alike by their means over the images: 1 is the same ranking, -1 "
        "the reverse. Intervals lean to the low side, since a resample is noisier than the whole."
    )
    return Table(name, caption, ("figure", "models", "Kendall", "Spearman"), tuple(rows))


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Kendall's tau-b of each pair of rows (R, K); NaN where a row is constant."""
    left, right = np.triu_indices(first.shape[1], 1)
    one, other = (np.sign(values[:, left] - values[:, right]) for values in (first, second))
    norm = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (one * other).sum(axis=1) / norm
    return found


def spearman_rho(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Spearman's rank correlation of each pair of rows (R, K); NaN where a row is constant."""
    from scipy.stats import rankdata

    one, other = (rankdata(values, axis=1) for values in (first, second))
    one, other = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (one, other))
    norm = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (one * other).sum(axis=1) / norm
    return found
