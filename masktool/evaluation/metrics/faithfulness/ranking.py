"""From a map to the order in which its pixels come and go."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.evaluation.maps import Map


def rank_pixels(attributions: Map, random: np.random.Generator) -> NDArray[np.intp]:
    """Returns the rank (h, w) of every pixel: 0 for the most important, ties in random order.

    A map that is constant, or constant within segments, thus gains nothing from where the array begins.

    Args:
        attributions: map (h, w), the larger the more important.
        random: random numbers that break the ties.
    """
    order = np.lexsort((random.random(attributions.size), -attributions.reshape(-1)))
    ranks = np.empty(attributions.size, np.intp)
    ranks[order] = np.arange(attributions.size)
    return ranks.reshape(attributions.shape)


def counts_of(shares: npt.ArrayLike, n_pixels: int) -> NDArray[np.intp]:
    """Returns the number of pixels that each share of all pixels is."""
    return np.rint(np.asarray(shares, np.float64) * n_pixels).astype(np.intp)
