"""F1 of the map, taken for a soft mask, against the box.

Precision is the share of the mask that lies in the box, recall the share of the box that the mask fills.
Source: Phang et al., "Investigating and Simplifying Masking-based Saliency Methods for Model Interpretability", 2020,
section 4, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.scaling import positive_part


def soft_f1(attributions: Map, box_pixels: NDArray[np.bool_], signed: bool) -> float | None:
    """Returns 2 Σ m·b / (Σ m + Σ b), with m the map's positive part over its largest value and b the box.

    Args:
        attributions: map (h, w).
        box_pixels: pixels in any of the boxes, (h, w) bool.
        signed: whether 0 separates support from opposition; otherwise the mask counts from the smallest value.

    Returns:
        F1, between 0 and 1; None where the map has no positive part, or nothing of the boxes is in the image.
    """
    positive = positive_part(attributions, signed)
    largest = positive.max()
    if largest == 0 or not box_pixels.any():
        return None
    mask = positive / largest
    return float(2 * mask[box_pixels].sum() / (mask.sum() + box_pixels.sum()))
