"""TensorFlow's Object Detection API: boxes (y0, x0, y1, x1) as shares of the image, in outputs with names of their own.

Behind NonMaxSuppression, ``detection_boxes``, ``detection_scores`` and ``detection_classes`` are lists, filled up with
scores of 0. In front of it, ``raw_detection_boxes`` and ``raw_detection_scores`` are of all places and classes, the
background's first. Classes are numbered from 1, as in its label maps; here, as in a file of labels, from 0.

Source: Huang et al., "Speed/accuracy trade-offs for modern convolutional object detectors", CVPR 2017,
https://arxiv.org/abs/1611.10012; https://github.com/tensorflow/models, research/object_detection, the fields of
DetectionResultFields.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np

from masktool.errors import MasktoolError
from masktool.explainers.detections import Detections
from masktool.explainers.detector import BOX, DETECTORS, Detector, InputSize, Shapes, Values, to_pixels
from masktool.explainers.detectors.boxes_and_scores import of_labels
from masktool.messages import parameter

CHOSEN = {"detection_boxes": 3, "detection_scores": 2, "detection_classes": 2}
"""Outputs behind NonMaxSuppression, with the number of their axes."""
RAW = {"raw_detection_boxes": 3, "raw_detection_scores": 3}
"""Outputs in front of it."""
TENSOR = ":0"
"""What TensorFlow puts behind the name of an operator for its first tensor, and converters leave there."""
XY_OF_YX = [1, 0, 3, 2]
FIRST_CLASS = 1
LARGEST_SHARE = 2.0
"""Lists are cut at the image, so that no number is above 1; of boxes in pixels one always is above this."""


@DETECTORS.add
@dataclasses.dataclass(frozen=True)
class TfDetection(Detector):
    """The outputs of TensorFlow's Object Detection API.

    Attributes:
        boxes: the name of the output with the boxes.
        scores: the name of the output with the scores.
        labels: the name of the output with the classes of lists; None where scores are of all classes.
    """

    name: ClassVar[str] = "tf-detection"
    summary: ClassVar[str] = (
        "detection_boxes (N, n, 4) of y0, x0, y1, x1 as shares, detection_scores and detection_classes (N, n), from 1; "
        "or raw_detection_boxes and raw_detection_scores (N, places, 1 + K)"
    )

    boxes: str
    scores: str
    labels: str | None = None

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head where outputs have its names and numbers of axes; lists where there are both."""
        names = {name.removesuffix(TENSOR): name for name in shapes}
        for known in (CHOSEN, RAW):
            found = [names[name] for name, rank in known.items() if name in names and len(shapes[names[name]]) == rank]
            if len(found) == len(known) and shapes[found[0]][-1] == BOX:
                return cls(*found)
        return None

    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:  # noqa: ARG002  # the names leave no doubt
        """Tells that it is."""
        return True

    @property
    def outputs(self) -> tuple[str, ...]:
        """Boxes, scores and, of lists, classes."""
        return tuple(name for name in (self.boxes, self.scores, self.labels) if name is not None)

    @property
    def lists(self) -> tuple[str, ...]:
        """All of them, or none."""
        return () if self.labels is None else self.outputs

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head as it is.

        Raises:
            MasktoolError: boxes of lists are no shares of the image, or a class is numbered 0.
        """
        if self.labels is None:
            return self
        largest = float(np.abs(values[self.boxes]).max(initial=0.0))
        used = values[self.labels][values[self.scores] > 0]
        smallest = int(used.min(initial=FIRST_CLASS))
        if largest > LARGEST_SHARE or smallest < FIRST_CLASS:
            raise MasktoolError(
                "the outputs are TensorFlow's by name alone",
                where=", ".join(self.outputs),
                expected=f"boxes as shares of the image, and classes from {FIRST_CLASS}",
                got=f"numbers up to {largest:.3g}, and a class {smallest}",
                fix="name the kind with " + parameter("detector", "boxes+scores") + " if boxes are x0, y0, x1, y1",
            )
        return self

    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images."""
        boxes = to_pixels(values[self.boxes][..., XY_OF_YX], size)
        scores = np.asarray(values[self.scores])
        if self.labels is None:
            return Detections.of_classes(boxes, scores[..., FIRST_CLASS:])
        return of_labels(boxes, scores, np.asarray(values[self.labels]) - FIRST_CLASS)
