"""MaxBoxAcc: how often boxes around what exceeds a threshold are the object's, at the data set's best threshold.

The map is stretched to [0, 1] and cut at thresholds τ: s ≥ τ. V1 takes the box of the largest component, and IoU ≥ .5
is right. V2 takes the box of any component that agrees best, and is the mean over IoU ≥ .3, .5 and .7, each with a
threshold of its own. Components are 8-connected, as contours are in the authors' program; their size is the number of
their pixels (there: the area within the contour).
Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 4.1,
https://arxiv.org/abs/2001.07437; V2 is from "Evaluation for Weakly Supervised Object Localization: Protocol, Metrics,
and Datasets", TPAMI 2022, https://arxiv.org/abs/2007.04178.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.datasets.dataset import Box
from masktool.evaluation.bootstrap import Interval, interval_of
from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.localisation.boxes import CORNERS, best_iou, component_boxes, largest_box
from masktool.evaluation.metrics.scaling import min_max

THRESHOLDS = tuple(step / 100 for step in range(100))
"""Thresholds of the stretched map; that of 0 takes the whole image, so no method is worse than that."""
IOU_LEVELS = (0.3, 0.5, 0.7)
V1_LEVELS = (2,)
"""Numbers of levels that a box must pass for V1: two, the levels up to .5."""
V2_LEVELS = (1, 2, 3)


def passed_levels(attributions: Map, boxes: Sequence[Box]) -> Mapping[str, str] | None:
    """Returns how many IoU levels the boxes of a map pass at each threshold, a digit each.

    Args:
        attributions: map (h, w).
        boxes: boxes of the object, (x0, y0, x1, y1) in the map's pixels.

    Returns:
        The digits, by ``largest`` for the box of the largest component and ``any`` for that of the component which
        agrees best; None without boxes to compare with.
    """
    if not boxes:
        return None
    scaled = min_max(attributions)
    largest, best = [], []
    for threshold in THRESHOLDS:
        found, sizes = component_boxes(scaled >= threshold, CORNERS)
        largest.append(count_levels(best_iou(largest_box(found, sizes), boxes)))
        best.append(count_levels(best_iou(found, boxes)))
    return {"largest": "".join(map(str, largest)), "any": "".join(map(str, best))}


def count_levels(iou: float) -> int:
    """Returns how many of :data:`IOU_LEVELS` an intersection over union reaches."""
    return sum(iou >= level for level in IOU_LEVELS)


def max_box_accuracy(levels: Sequence[str], wanted: Sequence[int], seed: int = 0) -> Interval:
    """Returns MaxBoxAcc over images; each resample has its own best threshold.

    Args:
        levels: levels of each image, as :func:`passed_levels` gives them: ``largest`` for V1, ``any`` for V2.
        wanted: numbers of levels that a box must pass, averaged over: :data:`V1_LEVELS` or :data:`V2_LEVELS`.
        seed: seed of the resamples.
    """
    digits = np.array([[int(digit) for digit in text] for text in levels]).reshape(len(levels), len(THRESHOLDS))

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        best: NDArray[np.float64] = np.mean([(weights @ (digits >= level)).max(axis=1) for level in wanted], axis=0)
        return best

    return interval_of(statistic, len(levels), seed)
