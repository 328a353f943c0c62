"""Percentile bootstrap intervals over images.

Every resample is a vector of counts, one per image, so that whatever is a function of weighted images (a mean, the
entropy of a histogram) has an interval, and figures of the same images are resampled alike.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

N_RESAMPLES = 2000
CONFIDENCE = 0.95
BLOCK_WEIGHTS = 1 << 22
"""Most weights that exist at once (32 MiB), however many the images."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function from weights of the images (R, N), each row summing to 1, to R figures."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure over images with its 95 % interval.

    Attributes:
        value: the figure over all images; NaN where it is defined for none.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: number of images for which the figure is defined.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def resample(n: int, seed: int = 0, n_resamples: int = N_RESAMPLES, block: int = 0) -> NDArray[np.float64]:
    """Returns the weights (R, n) of n images in resamples drawn with replacement; each row sums to 1.

    Args:
        n: number of images.
        seed: seed of the resamples.
        n_resamples: number of resamples.
        block: number of the block of resamples; each block holds other resamples.
    """
    drawn = np.random.default_rng([seed, block]).integers(n, size=(n_resamples, n))
    drawn += np.arange(n_resamples)[:, None] * n
    counts = np.bincount(drawn.reshape(-1), minlength=n_resamples * n)
    return counts.reshape(n_resamples, n) / n


@functools.lru_cache(maxsize=2)
def remembered_resample(n: int, seed: int, n_resamples: int, block: int) -> NDArray[np.float64]:
    """Returns what :func:`resample` does, remembered and read-only: a table's figures are mostly of the same images."""
    weights = resample(n, seed, n_resamples, block)
    weights.flags.writeable = False
    return weights


def interval_of(statistic: Statistic, n: int, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Interval:
    """Returns a figure over n images, given as a function of their weights, with its interval.

    Args:
        statistic: the figure as a function of the images' weights.
        n: number of images.
        seed: seed of the resamples.
        n_resamples: number of resamples.
    """
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    value = float(statistic(np.full((1, n), 1 / n))[0])
    tail = (1 - CONFIDENCE) / 2
    rows = max(1, BLOCK_WEIGHTS // n)
    figures = np.concatenate(
        [
            statistic(remembered_resample(n, seed, min(rows, n_resamples - start), start))
            for start in range(0, n_resamples, rows)
        ]
    )
    defined = figures[~np.isnan(figures)]
    low, high = np.quantile(defined, (tail, 1 - tail)) if len(defined) else (float("nan"), float("nan"))
    return Interval(value, float(low), float(high), n)


def interval_of_mean(values: npt.ArrayLike, seed: int = 0) -> Interval:
    """Returns the mean over images with its interval; images with NaN, where a figure is undefined, do not count.

    Args:
        values: (N,) one figure per image.
        seed: seed of the resamples.
    """
    array = np.asarray(values, np.float64)
    defined = array[~np.isnan(array)]
    return interval_of(lambda weights: weights @ defined, len(defined), seed)


def as_float(value: float | None) -> float:
    """Returns a record's figure as a float; None, which stands for undefined in JSON, becomes NaN."""
    return float("nan") if value is None else float(value)
