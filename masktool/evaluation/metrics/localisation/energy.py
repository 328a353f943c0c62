"""Energy-based pointing game: the share of the map's positive part that lies on the object.

Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR workshops
2020, section 4.3, https://arxiv.org/abs/1910.01279.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.scaling import positive_part


def energy_inside(attributions: Map, inside: NDArray[np.bool_], signed: bool) -> float | None:
    """Returns the sum of the map's positive part inside the object, over its sum everywhere.

    Args:
        attributions: map (h, w).
        inside: pixels of the object, (h, w) bool.
        signed: whether 0 separates support from opposition; otherwise the energy counts from the smallest value.

    Returns:
        The share, between 0 and 1; None where the map has no positive part, or nothing of the object is in the image.
    """
    positive = positive_part(attributions, signed)
    total = positive.sum()
    if total == 0 or not inside.any():
        return None
    return float(positive[inside].sum() / total)
