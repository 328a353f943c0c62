"""RetinaNet: offsets from nine anchors a place of five grids, and a logit for each class and anchor.

    centre = anchor's centre + given · anchor's size        size = anchor's size · exp(given)

Anchors are 32, 64 ... 512 pixels wide by grid, times 1, 2^(1/3) and 2^(2/3), in ratios of height to width of 1/2, 1 and
2, rounded to whole pixels around the corner of each place.

Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4, https://arxiv.org/abs/1708.02002;
order and rounding of anchors as in torchvision's network.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    DETECTORS,
    InputSize,
    Shapes,
    TwoOutputs,
    Values,
    are_probabilities,
    count_places,
    from_centres,
    squash,
)

STRIDES = (8, 16, 32, 64, 128)
WIDTHS = (32, 64, 128, 256, 512)
STEPS = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
ANCHORS = len(STEPS) * len(RATIOS)
LARGEST_GROWTH = math.log(1000 / 16)
"""Logarithm at which the growth of an anchor is cut, as torchvision has it."""


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class RetinaNet(TwoOutputs):
    """The head of RetinaNet.

    Attributes:
        are_logits: whether the classes have been through no sigmoid yet.
    """

    name: ClassVar[str] = "retinanet"
    summary: ClassVar[str] = "offsets (N, 9 x places, 4) from anchors, and logits of classes (N, 9 x places, K)"

    are_logits: bool = True

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether there are nine anchors for every place of the five grids."""
        return shapes[self.boxes][1] == shapes[self.scores][1] == ANCHORS * count_places(size, STRIDES)

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with whether a sigmoid is to come: logits do not all lie in 0..1."""
        return dataclasses.replace(self, are_logits=not are_probabilities(values[self.scores]))

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        given = np.asarray(values[self.scores], np.float64)
        offsets, anchors = np.asarray(values[self.boxes], np.float64), list_anchors(size)
        centres = anchors[:, :2] + offsets[..., :2] * anchors[:, 2:]
        sides = anchors[:, 2:] * np.exp(np.minimum(offsets[..., 2:], LARGEST_GROWTH))
        boxes = from_centres(np.concatenate([centres, sides], axis=-1))
        return Detections.of_classes(boxes, squash(given) if self.are_logits else given)


@functools.cache
def list_anchors(size: InputSize) -> np.ndarray:
    """Returns the anchors (centre x, centre y, width, height) in pixels, grid by grid, row by row."""
    found = []
    for stride, width in zip(STRIDES, WIDTHS, strict=True):
        counts = [-(-side // stride) for side in size]
        step_y, step_x = (side // count for side, count in zip(size, counts, strict=True))
        rows, columns = np.mgrid[: counts[0], : counts[1]]
        corners = np.stack([columns.ravel() * step_x, rows.ravel() * step_y], axis=1).astype(np.float64)
        scales = np.array([int(width * step) for step in STEPS])
        high = np.sqrt(RATIOS)
        halves = np.round(np.stack([np.outer(1 / high, scales).ravel(), np.outer(high, scales).ravel()], axis=1) / 2)
        found.append(np.concatenate([corners.repeat(ANCHORS, 0), np.tile(2 * halves, (len(corners), 1))], axis=1))
    return np.concatenate(found)
