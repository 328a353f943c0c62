"""Alignment of weights of segments with the object: the cosine with its shares, and how much of them lies on it.

    alignment          cos(a, o),  a_s = weight of segment s,  o_s = share of the object's pixels that lie in s
    weight on object   |a where o > 0| / |a|

Source: Sriram Balasubramanian and Soheil Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, https://arxiv.org/abs/2211.14646, for the former.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.metrics.means import mean_of_all
from masktool.explainers.segmentation import Segments
from masktool.journal import Record

EQUAL = "equal weights"
"""Name in place of a mode's for equal weights, which explain nothing."""
Weights = Mapping[str, Sequence[NDArray[np.float64]]]
"""Weights of the segments (S,), by mode, one array per seed."""


def measure_alignment(weights: Weights, segments: Segments, inside: NDArray[np.bool_] | None) -> Record:
    """Returns each mode's alignment with the object and its weight on the object, means of its seeds.

    Args:
        weights: weights of the segments, by mode and seed.
        segments: labels (h, w) of the segments, from 0.
        inside: pixels of the object, (h, w) bool; None where unknown.

    Returns:
        Both figures by mode, and for equal weights; None where the object is unknown, or where weights are all 0.
    """
    if inside is None or not inside.any():
        unknown: dict[str, float | None] = dict.fromkeys((*weights, EQUAL))
        return {"alignment": unknown, "on_object": unknown}
    share = np.bincount(segments.ravel(), inside.ravel()) / inside.sum()
    compared = {**weights, EQUAL: [np.ones_like(share)]}
    return {
        "alignment": {mode: mean_of_all([cosine(own, share) for own in seeds]) for mode, seeds in compared.items()},
        "on_object": {
            mode: mean_of_all([weight_on_object(own, share) for own in seeds]) for mode, seeds in compared.items()
        },
    }


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Returns the cosine of the angle between two vectors, from -1 to 1; None where one is all 0."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return None if lengths == 0 else float(a @ b) / lengths


def weight_on_object(weights: NDArray[np.float64], share: NDArray[np.float64]) -> float | None:
    """Returns the length of the weights on segments that hold some of the object, as a share of that of all.

    Args:
        weights: weights of the segments, (S,).
        share: share of the object that lies in each segment, (S,).

    Returns:
        The share, from 0 to 1; None where all weights are 0.
    """
    length = float(np.linalg.norm(weights))
    return None if length == 0 else float(np.linalg.norm(weights[share > 0])) / length
