"""UltraFace ("Ultra-Light-Fast-Generic-Face-Detector-1MB"): faces, boxes decoded in the graph.

Boxes are (x0, y0, x1, y1) as shares of the input; of the two scores the first is the background's. Three anchors a
place at strides 8 and 64, two at 16 and 32.

Source: Linzaer, https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB (MIT), its README and formats.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    BOX,
    DETECTORS,
    InputSize,
    Shapes,
    TwoOutputs,
    Values,
    count_places,
    to_pixels,
    with_rank,
)

ANCHORS = {8: 3, 16: 2, 32: 2, 64: 3}
"""Anchors a place by stride."""
COLUMNS = 2


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class UltraFace(TwoOutputs):
    """The head of UltraFace."""

    name: ClassVar[str] = "ultraface"
    summary: ClassVar[str] = "scores (N, places, 2), the background's first, and boxes (N, places, 4) as shares"

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with its two outputs."""
        flat = with_rank(shapes, 3)
        scores = [name for name, shape in flat.items() if shape[2] == COLUMNS]
        boxes = [name for name, shape in flat.items() if shape[2] == BOX]
        return cls(scores[0], boxes[0]) if len(scores) == len(boxes) == 1 else None

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether there are as many places as its grids have anchors."""
        expected = sum(count * count_places(size, (stride,)) for stride, count in ANCHORS.items())
        return shapes[self.scores][1] == shapes[self.boxes][1] == expected

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        boxes = to_pixels(values[self.boxes], size)
        return Detections.of_classes(boxes, np.asarray(values[self.scores])[..., 1:])
