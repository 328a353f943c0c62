"""A detection: how much of it is left where parts of the picture are hidden, as D-RISE asks.

    s = max over the masked image's detections of IoU · cosine of class scores · objectness

The nearest detection of each masked image decides, so that the box may move a little, and a neighbour of another class
does not stand in for it. With the masks of RISE the map is D-RISE's; any other method of masks asks the same.

Source: Petsiuk et al., "Black-box Explanation of Object Detectors via Saliency Maps" (D-RISE), CVPR 2021,
https://arxiv.org/abs/2006.03204.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata, Size
from masktool.errors import MasktoolError
from masktool.explainers.detection_checks import check_corners, check_finite_outputs, check_scores
from masktool.explainers.detections import Detections
from masktool.explainers.detector import Detector, choose_detector
from masktool.explainers.marks import Box, Mark
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import (
    SLUG_LENGTH,
    TARGETS,
    ClassScore,
    OutputShape,
    SettledTarget,
    Target,
    TargetWords,
    shorten_label,
)
from masktool.explainers.targets.class_target import TOP_COUNT, find_label, label_of
from masktool.layouts import image_size
from masktool.messages import Placeholder, parameter, parameters
from masktool.option_checks import check_share
from masktool.runtime.preprocessing import PreparedImage

LEAST_SCORE = 0.25
"""Score from which on a place counts as a detection: what detectors are usually run with."""
MOST_PASSES = 250
"""Most passes by default, that of the image as it is among them."""
NUMBERED = re.compile(r"box:(\d+)")
NUMBER = r"[+-]?\d+(?:\.\d+)?"
NEAR = re.compile(rf"(?:(.*\S)\s+)?near\s+({NUMBER})\s*,\s*({NUMBER})")


class Found(NamedTuple):
    """One detection of the image with nothing missing.

    Attributes:
        place: its place in the head's outputs.
        label: the index of its class.
        score: its score.
        box: its box, in the picture's pixels.
    """

    place: int
    label: int
    score: float
    box: Box


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class Detection(Target):
    """One detection of the image with nothing missing.

    Attributes:
        which: ``box:K`` for the detection with the K-th highest score, from 0; or ``LABEL near X,Y`` for the one of a
            class, by its label or index, that is nearest to a point of the picture; ``near X,Y`` for one of any class.
        detector: the kind of the model's head, or its name; None where it is to be found from the outputs.
        least_score: the score in 0..1 from which on a place counts as a detection; None for :data:`LEAST_SCORE`.
    """

    name: ClassVar[str] = "detection"
    syntax: ClassVar[str] = parameters(target=Placeholder("box:K|'LABEL near X,Y'"), detector=Placeholder("KIND"))
    summary: ClassVar[str] = "a detection: the largest overlap x likeness of classes x objectness that is left of it"
    gradient: ClassVar[str] = "none: which detection is the nearest changes from mask to mask"

    which: str
    detector: str | Detector | None = None
    least_score: float | None = None

    def __post_init__(self) -> None:
        if not (NUMBERED.fullmatch(self.which) or NEAR.fullmatch(self.which)):
            raise MasktoolError("not a detection", where=f"target {self.which!r}", expected="box:K, or LABEL near X,Y")
        if self.least_score is not None:
            check_share("least_score", self.least_score)

    @property
    def least(self) -> float:
        """The score from which on a place counts as a detection."""
        return LEAST_SCORE if self.least_score is None else float(self.least_score)

    @classmethod
    def from_words(cls, target: TargetWords, output: str | None) -> Self | None:
        """Returns the detection where no output is named, and the words are a box's or name a point."""
        is_meant = isinstance(target, str) and (NUMBERED.fullmatch(target) or NEAR.fullmatch(target))
        return cls(str(target)) if is_meant and output is None else None

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The outputs that the head reads."""
        return self.detector.outputs if isinstance(self.detector, Detector) else ()

    @property
    def names_outputs(self) -> bool:
        """Whether the head is known."""
        return isinstance(self.detector, Detector)

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error for a method that needs gradients."""
        return without_gradient(title, self.which)

    @property
    def lists(self) -> tuple[str, ...]:
        """Those of them that may be lists."""
        return self.detector.lists if isinstance(self.detector, Detector) else ()

    def fit(self, shapes: Mapping[str, OutputShape], size: Size, metadata: Metadata | None = None) -> Detection:
        """Returns the detection by the head that a model has."""
        if isinstance(self.detector, Detector):
            return self
        size = image_size(size, "a detection")
        return dataclasses.replace(self, detector=choose_detector(self.detector, shapes, size, metadata))

    def settle(self, outputs: ModelOutputs) -> SettledDetection:
        """Returns the detection with its box and scores."""
        assert isinstance(self.detector, Detector)  # as fit left it
        prepared = outputs.prepared
        assert prepared is not None  # as every reading has it
        if outputs.scale == "log-odds":
            raise MasktoolError("log-odds are of classes' scores", where=self.which, fix="leave the score out")
        values = {name: outputs.values[name] for name in self.detector.outputs}
        check_finite_outputs(values)
        size = image_size(prepared.size, "a detection")
        detector = self.detector.settle(values, size)
        detections = detector.decode(values, size)
        check_scores(detections, detector)
        check_corners(detections, detector, self.least)
        found = list_found(detections, prepared, self.least)
        index = self.choose(found, detections, outputs)
        chosen = found[index]
        return SettledDetection(
            f"box:{index}",
            label_of(chosen.label, outputs.metadata.labels),
            detector=detector,
            size=size,
            box=to_box(detections.boxes[0, chosen.place]),
            class_scores=tuple(map(float, detections.class_scores[0, chosen.place])),
            objectness=float(detections.objectness[0, chosen.place]),
            found=found,
            labels=outputs.metadata.labels,
            least_score=self.least,
        )

    def choose(self, found: tuple[Found, ...], detections: Detections, outputs: ModelOutputs) -> int:
        """Returns the index of the detection among those that were found.

        Raises:
            MasktoolError: there is none, or none of that number or label, or the point is outside the picture.
        """
        near = NEAR.fullmatch(self.which)
        point = None if near is None else (float(near[2]), float(near[3]))
        assert outputs.prepared is not None
        if point is not None:
            check_point(point, outputs.prepared.original_size, self.which)
        label = None if near is None or near[1] is None else read_class(near[1], outputs)
        if not found:
            highest = float(detections.scores[0].max(initial=0.0))
            raise MasktoolError(
                "nothing is detected in the picture",
                where=f"target {self.which!r}",
                expected=f"a score of at least {self.least:g}",
                got=f"{highest:.3g} at most",
                fix="lower " + parameter("least_score") + " where that is a detection",
            )
        if point is None:
            return choose_number(int(self.which.partition(":")[2]), found)
        fitting = [index for index, each in enumerate(found) if label in (None, each.label)]
        if not fitting:
            there = dict.fromkeys(name_class(each.label, outputs.metadata.labels) for each in found)
            raise MasktoolError(
                "no such detection", where=f"target {self.which!r}", expected=f"one of {', '.join(there)}"
            )
        return min(fitting, key=lambda index: measure_distance(point, found[index].box))


@dataclasses.dataclass(frozen=True)
class SettledDetection(SettledTarget):
    """One detection, by its box and scores.

    Attributes:
        index: ``box:K``, K its rank by score.
        detector: the head that makes detections of the outputs.
        size: (height, width) of the model's input in pixels.
        box: the box, in pixels of the model's input.
        class_scores: the scores of all classes.
        objectness: the objectness.
        found: all detections of the image, by falling score.
        labels: one label per class; None where they are unknown.
        least_score: the score from which on a place counts as a detection.
    """

    index: str
    detector: Detector = dataclasses.field(kw_only=True)
    size: tuple[int, int] = dataclasses.field(kw_only=True)
    box: Box = dataclasses.field(kw_only=True)
    class_scores: tuple[float, ...] = dataclasses.field(kw_only=True)
    objectness: float = dataclasses.field(kw_only=True)
    found: tuple[Found, ...] = dataclasses.field(kw_only=True)
    labels: tuple[str, ...] | None = dataclasses.field(kw_only=True)
    least_score: float = dataclasses.field(kw_only=True)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The outputs that the head reads."""
        return self.detector.outputs

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:  # noqa: ARG002
        """Yields a note where the file has another number of labels than the head has classes."""
        counts = [len(each or ()) for each in (self.labels, self.class_scores)]
        if self.labels is not None and counts[0] != counts[1] and not self.detector.lists:
            yield f"the file has {counts[0]} labels, and the detector {counts[1]} classes: labels may be of others"

    @property
    def chosen(self) -> Found:
        """The detection among all."""
        return self.found[int(self.index.partition(":")[2])]

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns how like it the most similar detection of each image is, (M,); NaN where an output is not finite."""
        values = {name: fill_up(outputs.values[name]) for name in self.detector.outputs}
        detections = self.detector.decode(values, self.size)
        similar = detections.similarity(self.box, np.array(self.class_scores))
        finite = [np.isfinite(each.reshape(len(each), -1)).all(axis=1) for each in values.values()]
        return np.where(np.all(finite, axis=0), similar, np.nan)

    def score_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``similarity``."""
        return "similarity"

    def evidence_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``similarities``."""
        return "similarities"

    def ranked_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``detection score``."""
        return "detection score"

    @property
    def name(self) -> str:
        """Such as ``dog (box:0)``."""
        return f"{name_class(self.chosen.label, self.labels)} ({self.index})"

    @property
    def title(self) -> str:
        """The label, cut where it is long, and the number."""
        return f"{shorten_label(name_class(self.chosen.label, self.labels))} ({self.index})"

    @property
    def slug(self) -> str:
        """The number and, where known, the label."""
        label = re.sub(r"\W+", "_", self.label or "").strip("_")[:SLUG_LENGTH]
        return "-".join(filter(None, (self.index.replace(":", "-"), label)))

    def describe(self) -> dict[str, Any]:
        """Returns the kind, the number, the class, the box in the picture's pixels, the head and the least score."""
        return {
            "kind": Detection.name,
            "index": self.index,
            "label": self.label,
            "class": self.chosen.label,
            "box": list(self.chosen.box),
            "objectness": self.objectness,
            "detection score": self.chosen.score,
            "detector": self.detector.name,
            "least_score": self.least_score,
        }

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:  # noqa: ARG002  # the image's own are known
        """Returns the detections with the highest scores, and it."""
        every = [
            ClassScore(f"box:{index}", name_class(each.label, self.labels), each.score)
            for index, each in enumerate(self.found)
        ]
        return (*every[:TOP_COUNT], *(each for each in every[TOP_COUNT:] if each.index == self.index))

    @property
    def most_passes(self) -> int:
        """A detector is a large network, which many hundred passes take minutes of."""
        return MOST_PASSES

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The boxes of all detections, in the picture's pixels."""
        return tuple(
            Mark(each.box, f"{name_class(each.label, self.labels)} {each.score:.2f}", f"box:{index}" == self.index)
            for index, each in enumerate(self.found)
        )

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error for a method that needs gradients."""
        return without_gradient(title, self.index)


def without_gradient(title: str, which: str) -> MasktoolError:
    """Returns the error for a method that needs gradients: the nearest detection changes from mask to mask."""
    return MasktoolError(
        f"{title} needs a gradient, and a detection has none",
        where=f"target {which}",
        fix="take a method of masks, such as rise, occlusion or lime",
    )


def list_found(detections: Detections, prepared: PreparedImage, least_score: float) -> tuple[Found, ...]:
    """Returns the first image's detections, by falling score, with boxes in the picture's pixels."""
    return tuple(
        Found(
            place,
            int(detections.class_scores[0, place].argmax()),
            float(detections.scores[0, place]),
            to_picture(to_box(detections.boxes[0, place]), prepared),
        )
        for place in detections.best(least_score)
    )


def to_box(values: NDArray[np.floating[Any]]) -> Box:
    """Returns four numbers as a box."""
    left, top, right, bottom = map(float, values)
    return left, top, right, bottom


def to_picture(box: Box, prepared: PreparedImage) -> Box:
    """Returns a box in the picture's pixels, of one in those of the model's input."""
    assert prepared.crop_box is not None  # a detection is in a picture
    x0, y0, x1, y1 = prepared.crop_box
    height, width = prepared.size
    scale_x, scale_y = (x1 - x0) / width, (y1 - y0) / height
    return x0 + box[0] * scale_x, y0 + box[1] * scale_y, x0 + box[2] * scale_x, y0 + box[3] * scale_y


def check_point(point: tuple[float, float], size: Size, which: str) -> None:
    """Raises a MasktoolError where a point is outside a picture of (height, width)."""
    height, width = size
    if not (0 <= point[0] <= width and 0 <= point[1] <= height):
        raise MasktoolError(
            "a point outside the picture",
            where=f"target {which!r}",
            expected=f"x from 0 to {width}, y from 0 to {height}",
            got=f"{point[0]:g},{point[1]:g}",
        )


def read_class(text: str, outputs: ModelOutputs) -> int:
    """Returns the index of the class that a label or an index names."""
    return int(text) if text.isdigit() else find_label(text, outputs.metadata.labels)


def choose_number(number: int, found: tuple[Found, ...]) -> int:
    """Returns the number of a detection, if there are as many."""
    if number < len(found):
        return number
    raise MasktoolError(
        "no such detection",
        where=f"target box:{number}",
        expected="box:0" if len(found) == 1 else f"box:0 to box:{len(found) - 1}",
    )


def name_class(index: int, labels: tuple[str, ...] | None) -> str:
    """Returns the label of a class, or ``class 3``."""
    return label_of(index, labels) or f"class {index}"


def measure_distance(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """Returns how far a point is from a box, 0 within it, and from its centre."""
    sides = list(zip(point, box[:2], box[2:], strict=True))
    outside = [max(low - at, at - high, 0.0) for at, low, high in sides]
    aside = [at - (low + high) / 2 for at, low, high in sides]
    return math.hypot(*outside), math.hypot(*aside)


def fill_up(values: NDArray[Any]) -> NDArray[Any]:
    """Returns lists of M images, of lengths of their own, as one array, filled up with zeros; any other as it is."""
    if values.dtype != object:
        return values
    longest = max(len(each) for each in values)
    shape = next(each.shape[1:] for each in values)
    filled = np.zeros((len(values), longest, *shape), np.float64)
    for row, each in zip(filled, values, strict=True):
        row[: len(each)] = each
    return filled
