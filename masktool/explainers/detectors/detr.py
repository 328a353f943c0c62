"""DETR: a box and class logits for each of a fixed number of queries; the last class is that there is no object.

Boxes are (centre x, centre y, width, height) as shares of the input.

Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, section 3,
https://arxiv.org/abs/2005.12872.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    DETECTORS,
    InputSize,
    Shapes,
    TwoOutputs,
    Values,
    from_centres,
    share_out,
    to_pixels,
)

QUERIES = 100


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class Detr(TwoOutputs):
    """The head of DETR."""

    name: ClassVar[str] = "detr"
    summary: ClassVar[str] = "logits (N, queries, K + 1), that of no object last, and boxes (N, queries, 4) as shares"

    box_words: ClassVar[tuple[str, ...]] = ("box", "dets")
    score_words: ClassVar[tuple[str, ...]] = ("logit", "class", "score", "labels")

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # queries do not depend on the size
        """Tells whether there are the hundred queries of the published network, and its names."""
        named = "logits" in self.scores and "boxes" in self.boxes
        return named and shapes[self.scores][1] == shapes[self.boxes][1] == QUERIES

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        shares = share_out(values[self.scores])
        classes = shares[..., :-1]
        return Detections(decode_shares(values[self.boxes], size), classes, 1 - shares[..., -1], classes.max(axis=2))


def decode_shares(values: np.ndarray, size: InputSize) -> np.ndarray:
    """Returns boxes (x0, y0, x1, y1) in pixels of boxes (centre x, centre y, width, height) as shares of an input."""
    return to_pixels(from_centres(values), size)
