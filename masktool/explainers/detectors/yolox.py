"""YOLOX: a box, an objectness and class scores for every place; its exporter leaves boxes as the network gives them:
offsets from the places, and logarithms of sizes, in strides.

Objectness and class scores have been through a sigmoid in the graph. Strides 8, 16 and 32.

Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.1, https://arxiv.org/abs/2107.08430.
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
    boxes_of_places,
    count_places,
    from_centres,
    pick_output,
    with_rank,
)

STRIDES = (8, 16, 32)
FIRST_CLASS = 5
LARGEST_LOGARITHM = 16.0
"""Logarithm of a width in strides that no box has: whatever is above has been decoded."""


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class Yolox(OneOutput):
    """The head of YOLOX.

    Attributes:
        is_decoded: whether boxes are in pixels already, as its exporter gives them on request.
    """

    name: ClassVar[str] = "yolox"
    summary: ClassVar[str] = (
        "(N, places, 5 + K): offset from the place, logarithm of the size, objectness, class scores"
    )

    is_decoded: bool = False

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with the one output (N, n, 5 + K)."""
        fitting = [
            name for name, shape in with_rank(shapes, 3).items() if shape[2] is not None and shape[2] > FIRST_CLASS
        ]
        name = pick_output(fitting, "output", "pred")
        return None if name is None else cls(name)

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether there are as many places as the three grids have."""
        return shapes[self.output][1] == count_places(size, STRIDES)

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with whether its boxes are decoded: no logarithm of a width is as large as a width."""
        largest = float(np.asarray(values[self.output])[..., 2:4].max())
        return dataclasses.replace(self, is_decoded=largest > LARGEST_LOGARITHM)

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        found = np.asarray(values[self.output])
        boxes = found[..., :4] if self.is_decoded else boxes_of_places(found[..., :4], size, STRIDES)
        classes, objectness = found[..., FIRST_CLASS:], found[..., FIRST_CLASS - 1]
        return Detections(from_centres(boxes), classes, objectness, objectness * classes.max(axis=2))
