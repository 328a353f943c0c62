"""Whether what a head was read as is what it is: outputs and boxes that no detector of the kind gives are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.detections import Detections
from masktool.explainers.detector import Detector, are_probabilities
from masktool.explainers.target import TargetError
from masktool.messages import parameter


def check_finite_outputs(values: Mapping[str, NDArray[Any]]) -> None:
    """Raises a MasktoolError where an output of the image with nothing missing is not finite."""
    for name, each in values.items():
        if not np.isfinite(each).all():
            raise MasktoolError(
                "the detector's output is not finite", where=name, expected="numbers", got="NaN or infinity"
            )


def check_scores(detections: Detections, detector: Detector) -> None:
    """Raises a MasktoolError where what was read as scores is none: then the head is of another kind."""
    if are_probabilities(detections.class_scores) and are_probabilities(detections.objectness):
        return
    both = np.concatenate([detections.class_scores.reshape(-1), detections.objectness.reshape(-1)])
    raise of_another_kind("outputs", detector, "scores in 0..1", f"{both.min():.3g} to {both.max():.3g}")


def check_corners(detections: Detections, detector: Detector, least_score: float) -> None:
    """Raises a MasktoolError where most boxes of the first image's detections end before they begin.

    Args:
        detections: the detections.
        detector: the head that they come from.
        least_score: the score from which on a place counts as a detection.
    """
    boxes = detections.boxes[0, detections.scores[0] >= least_score]
    turned = int(((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).sum())
    if turned > len(boxes) / 2:
        corners = "corners x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"
        raise of_another_kind("boxes", detector, corners, f"{turned} of {len(boxes)} inside out")


def of_another_kind(what: str, detector: Detector, expected: str, got: str) -> TargetError:
    """Returns the error for numbers that a head of the kind that was taken does not give."""
    return TargetError(
        f"the {what} are not those of a {detector.name} detector",
        where=", ".join(detector.outputs),
        expected=expected,
        got=got,
        fix="name the kind with " + parameter("detector"),
    )
