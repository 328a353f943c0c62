"""Detectors: what the outputs of a detection network's head mean; and all kinds of heads by name.

A kind of head is one file under ``detectors/``, found by looking into that package: a frozen dataclass that finds the
outputs it reads by their names and shapes, and makes boxes and scores of them by the head's published formulas. A file
of numbers does not say what they are, so that a head is taken without being named only where its number of places, or
the names of its outputs, leave no doubt.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.explainers.detections import Detections
from masktool.explainers.target import OutputShape
from masktool.messages import Placeholder, parameter
from masktool.registry import ClassRegistry

Shapes = Mapping[str, OutputShape]
"""The shapes of a model's outputs by name, with the axis of images in front; None for an axis of any length."""
Values = Mapping[str, NDArray[Any]]
"""The outputs of M images by name, (M, ...) each."""
InputSize = tuple[int, int]
"""(height, width) of the model's input in pixels."""
BOX = 4
"""Numbers of a box."""
LARGEST_EXPONENT = 50.0
"""Exponents are cut there, so that a place far from any object has a large box and not an infinite one."""


@dataclasses.dataclass(frozen=True)
class Detector(abc.ABC):
    """A kind of head, and the names of the outputs that it reads in a model.

    Class attributes:
        name: the name of the kind.
        summary: what its outputs are, in one line.
        is_general: whether it is taken only where no other kind is.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    is_general: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with the outputs of a model that it can read; None where there are none of such a form."""

    @abc.abstractmethod
    def is_sure(self, shapes: Shapes, size: InputSize) -> bool:
        """Tells whether names and shapes leave no doubt that the outputs are of this kind."""

    def is_told(self, shapes: Shapes, metadata: Metadata) -> bool:  # noqa: ARG002
        """Tells whether shapes leave no doubt together with what the file says, where they do not by themselves."""
        return False

    @property
    @abc.abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that it reads."""

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of those that may be lists of another length under other masks."""
        return ()

    def settle(self, values: Values, size: InputSize) -> Self:  # noqa: ARG002
        """Returns the head with what the outputs of an image with nothing missing tell, which holds under all masks."""
        return self

    @abc.abstractmethod
    def decode(self, values: Values, size: InputSize) -> Detections:
        """Returns the detections of M images.

        Args:
            values: the outputs of the images by name.
            size: (height, width) of the model's input in pixels.
        """


@dataclasses.dataclass(frozen=True)
class OneOutput(Detector):
    """A head that reads one output.

    Attributes:
        output: the name of the output.
    """

    output: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)


@dataclasses.dataclass(frozen=True)
class TwoOutputs(Detector):
    """A head that reads the scores of the classes in one output, and boxes in another.

    Class attributes:
        box_words: what stands in the name of the output with the boxes, where several may be it.
        score_words: what stands in the name of the output with the scores, likewise.

    Attributes:
        scores: the name of the output with the scores.
        boxes: the name of the output with the boxes.
    """

    box_words: ClassVar[tuple[str, ...]] = ("box", "reg", "delta", "loc")
    score_words: ClassVar[tuple[str, ...]] = ("cls", "class", "score", "conf", "logit")

    scores: str
    boxes: str

    @classmethod
    def find(cls, shapes: Shapes) -> Self | None:
        """Returns the head with its two outputs."""
        flat = cls.candidates(shapes)
        boxes = pick_output([name for name, shape in flat.items() if shape[2] == BOX], *cls.box_words)
        scores = pick_output([name for name in flat if name != boxes], *cls.score_words)
        return None if boxes is None or scores is None else cls(scores, boxes)

    @classmethod
    def candidates(cls, shapes: Shapes) -> Shapes:
        """Returns the outputs that may be its own, (N, places, columns) each."""
        return with_rank(shapes, 3)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Scores and boxes."""
        return (self.scores, self.boxes)


DETECTORS: ClassRegistry[Detector] = ClassRegistry("detector", "masktool.explainers.detectors")
"""The class of every kind of head, by its name."""


def choose_detector(name: str | None, shapes: Shapes, size: InputSize, metadata: Metadata | None = None) -> Detector:
    """Returns the head of a model: the kind that was named, else the one that its outputs leave no doubt about.

    Args:
        name: the name of the kind; None where it is to be found.
        shapes: the shapes of the model's outputs by name.
        size: (height, width) of the model's input in pixels.
        metadata: what the model's file says of itself, which is asked last; None where that is not known.

    Raises:
        MasktoolError: there is no such kind, its outputs are not in the model, or no kind or several fit.
    """
    if name is not None:
        kind = DETECTORS.find(name)
        found = kind.find(shapes)
        if found is None:
            raise MasktoolError(
                f"no outputs of a {name} detector", where="model", expected=kind.summary, got=show_outputs(shapes)
            )
        return found
    heads = [found for kind in DETECTORS.values() if (found := kind.find(shapes))]
    sure = [head for head in heads if head.is_sure(shapes, size)]
    particular = [head for head in sure if not head.is_general] or sure
    told = [] if metadata is None else [head for head in heads if head.is_told(shapes, metadata)]
    for chosen in (particular, told):
        if len(chosen) == 1:
            return chosen[0]
    fitting = [head.name for head in heads]
    if not fitting:
        raise MasktoolError(
            "the model is no detector that is known",
            expected=f"outputs of one of {', '.join(DETECTORS)}",
            got=show_outputs(shapes),
            fix="name values of an output instead: " + parameter("output", Placeholder("NAME")),
        )
    raise MasktoolError(
        "which kind of detector this is does not follow from its outputs",
        where="model",
        got=show_outputs(shapes),
        fix="name it with " + parameter("detector", Placeholder("|".join(fitting))),
    )


def show_outputs(shapes: Shapes) -> str:
    """Returns the names and shapes of outputs as text."""
    return ", ".join(
        f"{name} ({', '.join('?' if length is None else str(length) for length in shape)})"
        for name, shape in shapes.items()
    )


def with_rank(shapes: Shapes, count: int) -> dict[str, OutputShape]:
    """Returns those outputs that have a number of axes."""
    return {name: shape for name, shape in shapes.items() if len(shape) == count}


def pick_output(names: Sequence[str], *words: str) -> str | None:
    """Returns the one name of several, or the one with one of some words in it; None where there is no such one."""
    if len(names) == 1:
        return names[0]
    matching = [name for name in names if any(word in name.lower() for word in words)]
    return matching[0] if len(matching) == 1 else None


def count_places(size: InputSize, strides: Sequence[int]) -> int:
    """Returns how many places grids of some strides have over an input."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def list_places(size: InputSize, strides: Sequence[int]) -> NDArray[np.float64]:
    """Returns (column, row, stride) of every place of grids of some strides over an input, row by row, (n, 3)."""
    grids = []
    for stride in strides:
        rows, columns = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        grids.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
    return np.concatenate(grids).astype(np.float64)


def from_centres(centres: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns boxes (x0, y0, x1, y1) of boxes (centre x, centre y, width, height), (..., 4)."""
    values = np.asarray(centres, np.float64)
    half = values[..., 2:] / 2
    return np.concatenate([values[..., :2] - half, values[..., :2] + half], axis=-1)


def to_pixels(shares: NDArray[np.floating[Any]], size: InputSize) -> NDArray[np.float64]:
    """Returns numbers (x, y, x, y) in pixels of an input, of shares of it, (..., 4)."""
    return np.asarray(shares, np.float64) * np.array([*size[::-1], *size[::-1]])


def boxes_of_places(given: NDArray[np.floating[Any]], size: InputSize, strides: Sequence[int]) -> NDArray[np.float64]:
    """Returns boxes (centre x, centre y, width, height) in pixels, (M, n, 4).

        centre = (place + offset) . stride        (width, height) = exp(given) . stride

    Args:
        given: two offsets and two logarithms for each place, (M, n, 4).
        size: (height, width) of the model's input in pixels.
        strides: the strides of the grids.
    """
    places = list_places(size, strides)
    stride = places[:, 2:]
    return np.concatenate([(given[..., :2] + places[:, :2]) * stride, grow(given[..., 2:]) * stride], axis=-1)


def grow(exponents: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns e to the power of numbers, cut at :data:`LARGEST_EXPONENT`."""
    return np.exp(np.minimum(np.asarray(exponents, np.float64), LARGEST_EXPONENT))


def squash(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns the sigmoid of numbers."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def share_out(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns the softmax of numbers along their last axis."""
    values = np.asarray(logits, np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def are_probabilities(values: NDArray[Any]) -> bool:
    """Tells whether all numbers lie in 0..1, but for rounding."""
    return bool(values.size == 0 or (values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING))


ROUNDING = 1e-3
"""How far beyond 0..1 a score of 16 bits may come to lie."""
