"""Localisation error: whether the tight box of the map's largest component above the mean is the object's.

The box is the tight rectangle of the largest 4-connected component of m > mean(m), its last row and column included.
LE = 1 − [largest IoU with any of the object's boxes > .5]; OM asks besides that the predicted class is right. Both are
errors: lower is better.
Sources: Dabkowski and Gal, "Real Time Image Saliency for Black Box Classifiers", NeurIPS 2017, section 5.2,
https://arxiv.org/abs/1705.07857; Phang et al., "Investigating and Simplifying Masking-based Saliency Methods for Model
Interpretability", 2020, section 4, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.datasets.dataset import Box
from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.localisation.boxes import SIDES, best_iou, component_boxes, largest_box
from masktool.evaluation.metrics.scaling import is_flat

LEAST_IOU = 0.5
"""Intersection over union that a right box must exceed."""


def tight_box(attributions: Map) -> NDArray[np.float64]:
    """Returns the tight box (1, 4) of a map; of a constant map, that of the whole image."""
    if is_flat(attributions):
        height, width = attributions.shape
        return np.array([[0.0, 0.0, width, height]])
    return largest_box(*component_boxes(attributions > attributions.mean(), SIDES))


def tight_box_iou(attributions: Map, boxes: Sequence[Box]) -> float | None:
    """Returns the largest intersection over union of the tight box with any of the object's; None without any.

    Args:
        attributions: map (h, w).
        boxes: boxes of the object, (x0, y0, x1, y1) in the map's pixels.
    """
    return best_iou(tight_box(attributions), boxes) if boxes else None


def localisation_error(iou: float, class_right: bool = True) -> float:
    """Returns LE of one image; with ``class_right``, OM: 0 where the box (and the class) is right, else 1."""
    return 1.0 - float(iou > LEAST_IOU and class_right)
