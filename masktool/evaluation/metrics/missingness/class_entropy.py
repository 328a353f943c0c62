"""Class entropy: how many classes a model still tells apart over a set of images of which parts are missing.

    H = - sum over the classes of  p ln(p + 1e-7),   p = share of the images predicted as the class

A model biased by what is missing ends up with few classes whatever the image. The entropy of N images is at most
ln(N), so only figures of the same images compare.

Source: Sriram Balasubramanian and Soheil Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import BLOCK_WEIGHTS, CONFIDENCE, N_RESAMPLES, Interval, remembered_resample

LOG_EPSILON = 1e-7
"""The paper's addend within the logarithm; a class without images gives 0 · ln(1e-7) = 0."""


def class_entropy(weights: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the entropy of the predicted classes, in nats.

    Args:
        weights: weights of the images, (R, N), each row summing to 1.
        classes: predicted classes, (N,).

    Returns:
        The entropy for each row of weights, (R,), from 0 to ln(N).
    """
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=-1))  # classes count from 0
    shares = np.add.reduceat(weights[:, order], starts, axis=1)
    entropy: NDArray[np.float64] = -(shares * np.log(shares + LOG_EPSILON)).sum(axis=1)
    return entropy


def entropy_intervals(predicted: NDArray[np.int64], seed: int = 0) -> tuple[Interval, tuple[Interval, ...]]:
    """Returns the class entropy of several columns with intervals: of their mean, and of each.

    Args:
        predicted: predicted classes (N, F), one column per fraction removed.
        seed: seed of the resamples.
    """
    count = len(predicted)
    values = np.array([class_entropy(np.full((1, count), 1 / count), column)[0] for column in predicted.T])
    drawn = resampled_entropies(predicted, seed)
    each = (centred_interval(value, column, count) for value, column in zip(values, drawn.T, strict=True))
    return centred_interval(values.mean(), drawn.mean(axis=1), count), tuple(each)


def resampled_entropies(predicted: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Returns the class entropy of each column (N, F) in each resample, (R, F)."""
    rows = max(1, BLOCK_WEIGHTS // len(predicted))
    starts = range(0, N_RESAMPLES, rows)
    blocks = (remembered_resample(len(predicted), seed, min(rows, N_RESAMPLES - start), start) for start in starts)
    return np.concatenate(
        [np.stack([class_entropy(weights, column) for column in predicted.T], axis=1) for weights in blocks]
    )


def centred_interval(value: float, drawn: NDArray[np.float64], n: int) -> Interval:
    """Returns the interval of a figure that resamples underrate: their spread, around the figure.

    A resample holds about 63 % of the images, and so fewer classes: its entropy is lower than that of the whole set,
    and a plain percentile interval may lie below its own figure.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn - drawn.mean(), (tail, 1 - tail))
    return Interval(float(value), max(float(value + low), 0.0), float(value + high), n)
