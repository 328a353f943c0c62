"""YOLOv8 and its kin (v9, v11, v12, YOLO-World): boxes and class scores of every place, decoded in the graph.

Each place holds (centre x, centre y, width, height) in pixels and the classes' scores, places along the last axis.
There is no objectness: the score of a detection is that of its highest class. Strides 8, 16, 32; perhaps 4 or 64.

Source: Jocher et al., "Ultralytics YOLOv8", https://docs.ultralytics.com/models/yolov8/.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.contract import Metadata
from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    BOX,
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
from masktool.explainers.detectors.yolov5 import count_coefficients

TASKS = ("detect", "segment")
"""Tasks whose heads have these rows alone."""
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class Yolov8(OneOutput):
    """The head of YOLOv8.

    Attributes:
        last: the number of rows behind the classes', such as coefficients of masks.
    """

    name: ClassVar[str] = "yolov8"
    summary: ClassVar[str] = "(N, 4 + K, places): centre, width and height in pixels, class scores"

    last: int = 0

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with the one output (N, 4 + K, n)."""
        fitting = [name for name, shape in with_rank(shapes, 3).items() if shape[1] is not None and shape[1] > BOX]
        name = pick_output(fitting, "output0", "pred")
        return None if name is None else cls(name, count_coefficients(shapes))

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether there are as many places as one of the usual sets of grids has."""
        return shapes[self.output][2] in {count_places(size, strides) for strides in STRIDES}

    def is_told(self, shapes: Shapes, metadata: Metadata) -> bool:
        """Tells whether the file says that it finds boxes, and names as many classes as there are rows for."""
        rows = BOX + len(metadata.labels or ()) + self.last
        return metadata.task in TASKS and metadata.labels is not None and shapes[self.output][1] == rows

    def decode(self, values: Values, size: InputSize) -> Detections:  # noqa: ARG002  # boxes are in pixels
        """Returns the detections of M images."""
        found = np.asarray(values[self.output]).transpose(0, 2, 1)
        classes = found[..., BOX : found.shape[2] - self.last]
        return Detections.of_classes(from_centres(found[..., :BOX]), classes)
