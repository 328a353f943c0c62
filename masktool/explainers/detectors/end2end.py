"""Detections in rows, as exporters write them with NonMaxSuppression in the graph, and YOLOv10 without one.

A row is (x0, y0, x1, y1, score, class) in pixels; of seven columns (image, x0, y0, x1, y1, class, score), as YOLOv7's
exporter has it. Rows that are not used have a score of 0.

Sources: Jocher et al., https://docs.ultralytics.com/modes/export/ (nms=True); Wang et al., "YOLOv10", 2024,
https://arxiv.org/abs/2405.14458; Wang, Bochkovskiy and Liao, "YOLOv7", https://github.com/WongKinYiu/yolov7.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import BOX, DETECTORS, InputSize, OneOutput, Shapes, Values, pick_output, with_rank
from masktool.explainers.detectors.boxes_and_scores import of_labels

COLUMNS = {6: (0, 4, 5), 7: (1, 6, 5)}
"""Where the box begins, the score and the class, by the number of columns."""
ROWS = 300
"""What is usual."""


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class EndToEnd(OneOutput):
    """Detections in rows."""

    name: ClassVar[str] = "end2end"
    summary: ClassVar[str] = "rows (N, n, 6) of x0, y0, x1, y1, score, class, or (N, n, 7) of image, box, class, score"

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with the one output of rows."""
        name = pick_output(
            [name for name, shape in with_rank(shapes, 3).items() if shape[2] in COLUMNS], "output", "det"
        )
        return None if name is None else cls(name)

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # rows do not depend on the size
        """Tells whether there are three hundred rows of six columns."""
        return shapes[self.output][1:] == (ROWS, 6)

    @property
    def lists(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    def decode(self, values: Values, size: InputSize) -> Detections:  # noqa: ARG002  # boxes are in pixels
        """Returns the detections of M images."""
        rows = np.asarray(values[self.output], np.float64)
        box, score, label = COLUMNS[rows.shape[2]]
        return of_labels(rows[..., box : box + BOX], rows[..., score], rows[..., label])
