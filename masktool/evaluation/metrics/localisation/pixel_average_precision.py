"""PxAP: average precision of the map's values as scores of "this pixel is the object's", over all pixels of all images.

Maps are stretched to [0, 1] one by one, and their values are counted in bins, inside the object and outside: the counts
of an image are all that its share of the figure needs.
Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 4.2,
https://arxiv.org/abs/2001.07437.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval, interval_of
from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.scaling import min_max

N_BINS = 1000
"""Number of bins: as fine as the authors' thresholds, which are .001 apart."""
COUNT_TYPE = "<u4"


def count_pixels(attributions: Map, inside: NDArray[np.bool_]) -> str | None:
    """Returns how many pixels inside and outside the object have a value in each bin, packed into a text.

    Args:
        attributions: map (h, w).
        inside: pixels of the object, (h, w) bool.

    Returns:
        The text, for :func:`unpack_counts` to read; None where nothing of the object is in the image.
    """
    if not inside.any():
        return None
    bins = np.minimum((min_max(attributions) * N_BINS).astype(np.intp), N_BINS - 1)
    counts = np.stack([np.bincount(bins[part], minlength=N_BINS) for part in (inside, ~inside)])
    return base64.b64encode(zlib.compress(counts.astype(COUNT_TYPE).tobytes())).decode()


def unpack_counts(text: str) -> NDArray[np.float64]:
    """Returns the counts in a text of :func:`count_pixels`, (2, bins): inside and outside, by rising value."""
    counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), COUNT_TYPE)
    return counts.reshape(2, N_BINS).astype(np.float64)


def average_precision(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Σ precision(τ) · Δ recall(τ) over falling thresholds τ, the lower edges of the bins.

    Args:
        counts: counts (R, 2, bins) of R sets of pixels, inside and outside, by rising value.

    Returns:
        The average precision of each set, (R,), from 0 to 1.
    """
    falling = counts[:, :, ::-1]
    found = falling.cumsum(axis=2)
    n_found = found.sum(axis=1)
    precision = found[:, 0] / np.where(n_found == 0, 1, n_found)  # where none is found, recall does not rise either
    result: NDArray[np.float64] = (precision * falling[:, 0]).sum(axis=1) / found[:, 0, -1]
    return result


def pixel_average_precision(packed: Sequence[str], seed: int = 0) -> Interval:
    """Returns PxAP over images, given by their texts of :func:`count_pixels`; the interval resamples whole images."""
    counts = np.array([unpack_counts(text) for text in packed]).reshape(len(packed), 2 * N_BINS)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return average_precision((weights @ counts).reshape(-1, 2, N_BINS))

    return interval_of(statistic, len(packed), seed)
