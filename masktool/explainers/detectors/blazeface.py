"""BlazeFace for the front camera: faces, two anchors a place of a grid of 16 x 16 and six of one of 8 x 8.

Anchors are points, the cells' centres; boxes are (centre x, centre y, width, height) in pixels of the input, the centre
from the anchor. Scores are logits, cut at ±100.

Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019,
https://arxiv.org/abs/1907.05047, with the options of MediaPipe's face_detection_front.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    DETECTORS,
    Detector,
    InputSize,
    Shapes,
    Values,
    from_centres,
    list_places,
    squash,
    with_rank,
)

ANCHORS = {8: 2, 16: 6}
"""Anchors a place by stride: 512 on the first grid, 384 on the second."""
COUNTS = (512, 384)
COLUMNS = 16
"""A box and six points."""
LARGEST_LOGIT = 100.0


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class BlazeFace(Detector):
    """The head of BlazeFace.

    Attributes:
        scores: the names of the outputs with the logits, the finer grid first; of one that holds both, that one.
        boxes: the names of the outputs with the boxes, likewise.
    """

    name: ClassVar[str] = "blazeface"
    summary: ClassVar[str] = "logits (N, 896, 1) and boxes (N, 896, 16), or each as (N, 512, .) and (N, 384, .)"

    scores: tuple[str, ...]
    boxes: tuple[str, ...]

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with its two or four outputs."""
        scores, boxes = (find_grids(shapes, columns) for columns in (1, COLUMNS))
        return cls(scores, boxes) if scores and boxes else None

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # nothing else has these shapes
        """Tells whether the input is that of the published network."""
        return size == (128, 128)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Logits and boxes."""
        return (*self.scores, *self.boxes)

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        logits, given = (
            np.concatenate([values[name] for name in names], axis=1) for names in (self.scores, self.boxes)
        )
        boxes = np.array(given[..., :4], np.float64)
        boxes[..., :2] += place_anchors(size)
        scores = squash(np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT))
        return Detections.of_classes(from_centres(boxes), scores)


def find_grids(shapes: Shapes, columns: int) -> tuple[str, ...]:
    """Returns the names of the outputs with a number of columns for all anchors; empty where there are none."""
    found = {shape[1]: name for name, shape in with_rank(shapes, 3).items() if shape[2] == columns}
    if sum(COUNTS) in found:
        return (found[sum(COUNTS)],)
    return tuple(found[count] for count in COUNTS) if set(COUNTS) <= set(found) else ()


def place_anchors(size: InputSize) -> np.ndarray:
    """Returns the anchors (x, y) in pixels, (896, 2)."""
    grids = [np.repeat(list_places(size, (stride,)), count, axis=0) for stride, count in ANCHORS.items()]
    places = np.concatenate(grids)
    return (places[:, :2] + 0.5) * places[:, 2:]
