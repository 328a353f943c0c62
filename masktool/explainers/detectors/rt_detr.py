"""RT-DETR, RF-DETR, Deformable DETR: a box for each query, and a logit for each class, without one for no object.

Boxes are (centre x, centre y, width, height) as shares of the input; classes go through a sigmoid each, where the graph
has not done so.

Source: Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", CVPR 2024, https://arxiv.org/abs/2304.08069.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import DETECTORS, InputSize, Shapes, Values, are_probabilities, squash
from masktool.explainers.detectors.detr import Detr, decode_shares

QUERIES = 300


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class RtDetr(Detr):
    """The head of RT-DETR.

    Attributes:
        are_logits: whether the classes have been through no sigmoid yet.
    """

    name: ClassVar[str] = "rt-detr"
    summary: ClassVar[str] = "logits (N, queries, K) of classes that go through a sigmoid, and boxes (N, queries, 4)"

    are_logits: bool = True

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # queries do not depend on the size
        """Tells whether there are its three hundred queries."""
        return shapes[self.scores][1] == shapes[self.boxes][1] == QUERIES

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with whether a sigmoid is to come: logits do not all lie in 0..1."""
        return dataclasses.replace(self, are_logits=not are_probabilities(values[self.scores]))

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        given = np.asarray(values[self.scores])
        classes = squash(given) if self.are_logits else given
        return Detections.of_classes(decode_shares(values[self.boxes], size), classes)
