"""YuNet: faces, one place a cell of three grids, each grid with outputs of its own.

    centre = (place + offset) · stride        (width, height) = exp(given) · stride        score = sqrt(class · object)

Source: Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import DETECTORS, Detector, InputSize, Shapes, Values, boxes_of_places, from_centres

STRIDES = (8, 16, 32)
PARTS = ("cls", "obj", "bbox")


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class YuNet(Detector):
    """The head of YuNet, whose outputs have names of their own."""

    name: ClassVar[str] = "yunet"
    summary: ClassVar[str] = "cls_8, obj_8, bbox_8 and the same of 16 and 32: (N, places, 1), (N, places, 4)"

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head where all nine outputs are there."""
        head = cls()
        return head if set(head.outputs) <= set(shapes) else None

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # nine names leave no doubt
        """Tells that it is."""
        return True

    @property
    def outputs(self) -> tuple[str, ...]:
        """Class, object and box of each grid."""
        return tuple(f"{part}_{stride}" for part in PARTS for stride in STRIDES)

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        classes, objects, given = (
            np.concatenate([values[f"{part}_{stride}"] for stride in STRIDES], axis=1) for part in PARTS
        )
        boxes = boxes_of_places(given[..., :4], size, STRIDES)
        scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
        return Detections.of_classes(from_centres(boxes), scores)
