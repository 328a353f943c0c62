"""How well a map finds an object whose pixels are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def measure_iou(attributions: NDArray[np.floating[Any]], object_mask: NDArray[np.bool_]) -> float:
    """Cuts a map so that it covers as much as the object does, and returns the overlap with the object.

    Pixels that share the value at which the map is cut count by the share of them that still fits: the result is the
    expected one were they drawn at random, and a flat map gets what a random one does.

    Args:
        attributions: the map (H, W), larger values more important; pixels with NaN, which the model did not see, do not
            count.
        object_mask: the object's pixels, (H, W) bool.

    Returns:
        Intersection over union, 0..1; NaN where the object lies outside of the pixels that count.
    """
    seen = np.isfinite(attributions)
    values, inside = attributions[seen], object_mask[seen]
    size = int(inside.sum())
    if size == 0:
        return float("nan")
    threshold = np.partition(values, -size)[-size]
    above, at = values > threshold, values == threshold
    fitting = (size - above.sum()) / at.sum()
    intersection = inside[above].sum() + fitting * inside[at].sum()
    return float(intersection / (2 * size - intersection))


def expect_random_iou(share: float) -> float:
    """Returns the IoU of a random map, on average, with an object that covers the given share of the picture.

    The cut map hits the object at the rate ``share``: s·s over s + s - s·s.
    """
    return share / (2 - share)
