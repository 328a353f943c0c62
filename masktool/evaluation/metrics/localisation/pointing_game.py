"""Pointing game: does the largest value of the map lie on the object?

Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 5.1,
https://arxiv.org/abs/1608.00507. They let a point miss the object by 15 pixels; here it must be on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map


def point(attributions: Map, inside: NDArray[np.bool_]) -> float | None:
    """Returns 1 for a hit, 0 for a miss; where several pixels share the largest value, the share of them inside.

    Args:
        attributions: map (h, w).
        inside: pixels of the object, (h, w) bool.

    Returns:
        The hit, between 0 and 1; None where nothing of the object is in the image.
    """
    if not inside.any():
        return None
    return float(inside[attributions == attributions.max()].mean())
