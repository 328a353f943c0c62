"""Boxes and scores as they are: what a graph has decoded, before NonMaxSuppression or behind it.

Boxes are (x0, y0, x1, y1), in pixels or, where none is above 2, as shares of the input. Scores are those of all
classes, or one for each box, with labels in an output of their own where there are classes. Behind NonMaxSuppression
these are lists of another length under every mask.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.errors import MasktoolError
from masktool.explainers.detections import Detections
from masktool.explainers.detector import (
    BOX,
    DETECTORS,
    Detector,
    InputSize,
    Shapes,
    Values,
    pick_output,
    to_pixels,
    with_rank,
)

LARGEST_SHARE = 2.0
"""No box in pixels ends within two pixels of the corner in every place."""
SCORE_WORDS, LABEL_WORDS = ("score", "conf", "prob"), ("label", "class", "cls", "categor")
MOST_CLASSES = 100_000
FLAT = 3


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class BoxesAndScores(Detector):
    """Boxes and scores.

    Attributes:
        boxes: the name of the output with the boxes.
        scores: the name of the output with the scores.
        labels: the name of the output with the labels; None where scores are of all classes.
        are_shares: whether boxes are shares of the input.
    """

    name: ClassVar[str] = "boxes+scores"
    summary: ClassVar[str] = "boxes (N, places, 4) as corners, and scores (N, places, K), or (N, places) with labels"
    is_general: ClassVar[bool] = True

    boxes: str
    scores: str
    labels: str | None = None
    are_shares: bool = False

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the boxes and scores among the outputs."""
        boxes = pick_output([name for name, shape in shapes.items() if is_of_boxes(shape)], "box")
        if boxes is None:
            return None
        others = [name for name in with_rank(shapes, FLAT) if name != boxes]
        scores = pick_output(others, *SCORE_WORDS)
        if scores is not None:
            return cls(boxes, scores)
        lists = list(with_rank(shapes, 2))
        labels = pick_output([name for name in lists if has_word(name, LABEL_WORDS)], *LABEL_WORDS)
        scores = pick_output([name for name in lists if name != labels], *SCORE_WORDS)
        return None if scores is None else cls(boxes, scores, labels)

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # names decide
        """Tells whether boxes and scores are called so, and are of as many places."""
        return "box" in self.boxes.lower() and has_word(self.scores, SCORE_WORDS) and self.fits(shapes)

    def fits(self, shapes: Shapes) -> bool:
        """Tells whether there are scores of as many places as boxes, along either axis."""
        count = shapes[self.boxes][1]
        return count is None or count in shapes[self.scores][1:]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Boxes, scores and, where they are, labels."""
        return tuple(name for name in (self.boxes, self.scores, self.labels) if name is not None)

    @property
    def lists(self) -> tuple[str, ...]:
        """All of them."""
        return self.outputs

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with whether boxes are shares."""
        boxes = values[self.boxes]
        return dataclasses.replace(self, are_shares=boxes.size > 0 and float(np.abs(boxes).max()) <= LARGEST_SHARE)

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        given = np.asarray(values[self.boxes], np.float64)
        boxes = given.reshape(len(given), -1, BOX)
        if self.are_shares:
            boxes = to_pixels(boxes, size)
        scores = np.asarray(values[self.scores])
        if scores.ndim == FLAT:
            return Detections.of_classes(
                boxes, scores if scores.shape[1] == boxes.shape[1] else scores.transpose(0, 2, 1)
            )
        return of_labels(boxes, scores, None if self.labels is None else values[self.labels])


def of_labels(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray | None) -> Detections:
    """Returns detections with one score each, (M, n), and the class that it is of; None where there is one class.

    Raises:
        MasktoolError: the labels are no indices of classes.
    """
    scores = np.clip(np.asarray(scores, np.float64), 0, None)  # places that are not used have -1 in some
    if labels is None or labels.size == 0:
        return Detections(boxes, scores[..., None], scores, scores)
    classes = np.asarray(labels).astype(np.int64)
    used = classes[scores > 0]
    if used.size and (used.min() < 0 or used.max() >= MOST_CLASSES):
        raise MasktoolError("labels that are no indices of classes", got=f"{used.min()} to {used.max()}")
    count = int(used.max()) + 1 if used.size else 1
    vectors = np.where(classes[..., None] == np.arange(count), scores[..., None], 0)
    return Detections(boxes, vectors, scores, scores)


def is_of_boxes(shape: tuple[int | None, ...]) -> bool:
    """Tells whether an output holds boxes: four columns, perhaps behind an axis of length 1."""
    return shape[-1:] == (BOX,) and (len(shape) == FLAT or (len(shape) == FLAT + 1 and shape[2] == 1))


def has_word(name: str, words: tuple[str, ...]) -> bool:
    """Tells whether one of some words stands in a name."""
    return any(word in name.lower() for word in words)
