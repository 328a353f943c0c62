"""YOLOv5 and its kin (YOLOv3 and v4 by the same hand, v7): boxes, objectness and class scores, decoded in the graph.

Each place holds (centre x, centre y, width, height) in pixels, the objectness, and the classes' scores given an object;
the score of a detection is the product of the two. Three anchors a place, strides 8, 16, 32 and perhaps 64.

Source: Jocher et al., "YOLOv5", https://docs.ultralytics.com/yolov5/.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    DETECTORS,
    InputSize,
    OneOutput,
    Shapes,
    Values,
    count_places,
    from_centres,
    pick_output,
    with_rank,
)

ANCHORS = 3
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))
"""Of the usual networks, of those for 1280 pixels, and of the tiny ones."""
FIRST_CLASS = 5
MASKS_AXES = 4
"""Axes of the masks that a network for segmentation gives beside the boxes: their coefficients stand last."""


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class Yolov5(OneOutput):
    """The head of YOLOv5.

    Attributes:
        last: the number of columns behind the classes', such as coefficients of masks.
    """

    name: ClassVar[str] = "yolov5"
    summary: ClassVar[str] = "(N, places, 5 + K): centre, width and height in pixels, objectness, class scores"

    last: int = 0

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with the one output (N, n, 5 + K)."""
        fitting = [
            name for name, shape in with_rank(shapes, 3).items() if shape[2] is not None and shape[2] > FIRST_CLASS
        ]
        name = pick_output(fitting, "output0", "pred")
        return None if name is None else cls(name, count_coefficients(shapes))

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether there are three anchors for every place of one of the usual grids."""
        return shapes[self.output][1] in {ANCHORS * count_places(size, strides) for strides in STRIDES}

    def decode(self, values: Values, size: InputSize) -> Detections:  # noqa: ARG002  # boxes are in pixels
        """Returns the detections of M images; of a network of one class the objectness is the score."""
        found = np.asarray(values[self.output])
        classes = found[..., FIRST_CLASS : found.shape[2] - self.last]
        objectness = found[..., FIRST_CLASS - 1]
        highest = classes.max(axis=2) if classes.shape[2] > 1 else 1
        return Detections(from_centres(found[..., :4]), classes, objectness, objectness * highest)


def count_coefficients(shapes: Shapes) -> int:
    """Returns the number of coefficients of masks behind the classes: as many as the masks' channels, else 0."""
    masks = list(with_rank(shapes, MASKS_AXES).values())
    return (masks[0][1] or 0) if len(masks) == 1 and len(shapes) == 2 else 0
