"""Detections of images, whatever head they come from, and how like a given one they are.

    s(d, D) = max over D of IoU(d, D_j) · cosine(class scores of d and D_j) · objectness of D_j

Source: Petsiuk et al., "Black-box Explanation of Object Detectors via Saliency Maps" (D-RISE), CVPR 2021, section 3.3,
https://arxiv.org/abs/2006.03204.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.marks import Box

Floats = NDArray[np.floating]
SAME_OBJECT = 0.45
"""Overlap above which two boxes of one class count as one object: what detectors are usually run with."""
MOST_CANDIDATES = 1000
"""Places with the highest scores among which overlapping ones are looked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The detections of M images, n each; where an image has fewer, the rest have an objectness of 0.

    Attributes:
        boxes: the boxes (x0, y0, x1, y1), (M, n, 4), in pixels of the model's input.
        class_scores: the scores of the classes, (M, n, K), in 0..1.
        objectness: how sure the detector is that there is an object, whichever, (M, n), in 0..1. Where a head does not
            tell, it is the score of the class with the highest.
        scores: the scores that the detector itself sorts its detections by, (M, n), in 0..1.
    """

    boxes: Floats
    class_scores: Floats
    objectness: Floats
    scores: Floats

    @classmethod
    def of_classes(cls, boxes: Floats, class_scores: Floats) -> Detections:
        """Returns the detections of a head without an objectness of its own."""
        highest = class_scores.max(axis=2)
        return cls(boxes, class_scores, highest, highest)

    def similarity(self, box: Box, class_scores: Floats) -> NDArray[np.float64]:
        """Returns how like a given detection the most similar one of each image is, (M,), in 0..1; 0 where none is.

        Args:
            box: the box of the given detection.
            class_scores: its class scores, (K,).
        """
        overlaps = overlap_with(self.boxes, box)
        near = (overlaps > 0) & (self.objectness > 0)
        found = np.zeros(len(overlaps))
        alike = class_cosines(self.class_scores[near], class_scores) * overlaps[near] * self.objectness[near]
        np.maximum.at(found, np.nonzero(near)[0], alike)
        return found

    def best(self, least_score: float) -> list[int]:
        """Returns the places of the first image's detections, by falling score, one for each object.

        Of boxes of one class that overlap by more than :data:`SAME_OBJECT`, the one with the highest score stands.

        Args:
            least_score: the score from which on a place is a detection.
        """
        scores, classes = self.scores[0], self.class_scores[0].argmax(axis=1)
        order = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
        left = order[scores[order] >= least_score]
        kept: list[int] = []
        while len(left):
            first = int(left[0])
            kept.append(first)
            x0, y0, x1, y1 = map(float, self.boxes[0, first])
            same = (overlap_with(self.boxes[0, left], (x0, y0, x1, y1)) > SAME_OBJECT) & (
                classes[left] == classes[first]
            )
            left = left[1:][~same[1:]]
        return kept


def overlap_with(boxes: Floats, box: Box) -> NDArray[np.float64]:
    """Returns the intersection of boxes (..., 4) with one box, over their union, (...); 0 of what has no area."""
    x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
    width = np.minimum(x1, box[2]) - np.maximum(x0, box[0])
    height = np.minimum(y1, box[3]) - np.maximum(y0, box[1])
    common = np.clip(width, 0, None) * np.clip(height, 0, None)
    areas = np.clip(x1 - x0, 0, None) * np.clip(y1 - y0, 0, None)
    union = areas + (box[2] - box[0]) * (box[3] - box[1]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def class_cosines(vectors: Floats, other: Floats) -> NDArray[np.float64]:
    """Returns the cosines of the angles between vectors (m, K) and another (K,), (m,); 0 of what is 0.

    Where one has fewer classes, those that it lacks count as 0.
    """
    count = max(vectors.shape[1], len(other))
    first = np.zeros((len(vectors), count))
    first[:, : vectors.shape[1]] = vectors
    second = np.zeros(count)
    second[: len(other)] = other
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second)
    products = first @ second
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
