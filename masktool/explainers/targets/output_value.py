"""One value of an output, as the model gives it: a coordinate, a regression, one bit of a multi-label head."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import (
    TARGETS,
    TOP,
    ClassScore,
    Place,
    SettledOutput,
    Target,
    TargetError,
    TargetWords,
)
from masktool.explainers.targets.class_target import find_label, label_of
from masktool.messages import Placeholder, parameter, parameters
from masktool.runtime.scores import note_corrected_scores


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class OutputValue(Target):
    """One value of an output, as the model gives it.

    Attributes:
        output: the name of the output.
        place: indices into all axes of the output but the batch; ``top`` for its largest value; a label of the class
            output; None where the output has one value only.
    """

    name: ClassVar[str] = "value"
    syntax: ClassVar[str] = parameters(output=Placeholder("NAME"), target=Placeholder("top|I,J|LABEL"))
    summary: ClassVar[str] = "one value of an output, as it is"
    gradient: ClassVar[str] = "its own"
    is_general: ClassVar[bool] = True

    output: str
    place: TargetWords = None

    @classmethod
    def from_words(cls, target: TargetWords, output: str | None) -> Self | None:
        """Returns the value where an output is named."""
        return None if output is None else cls(output, target)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The output."""
        return (self.output,)

    def settle(self, outputs: ModelOutputs) -> SettledValue:
        """Returns the value by its indices."""
        refuse_log_odds(outputs, self.output)
        values, labels = outputs.values[self.output][0], value_labels(outputs, self.output)
        place = find_labelled(self.place, labels, values.shape)
        if place is None:
            place = resolve_place(self.place, values, self.output)
        return SettledValue(
            place,
            label_of(place[0], labels) if place else None,
            given=self.place not in (None, TOP),
            output_name=self.output,
            is_logit=gives_logits(outputs.metadata, self.output),
            is_only=values.size == 1,
        )


@dataclasses.dataclass(frozen=True)
class SettledPart(SettledOutput):
    """One value of an output, or several of them.

    Attributes:
        index: the indices of the value, or the part as text.
    """

    index: Place | str

    @property
    def name(self) -> str:
        """The output with the part, such as ``boxes[5, 0]`` or ``heat[0,2:5,:]``, behind its label if it has one."""
        place = name_place(self.output_name, self.index)
        return place if self.label is None else f"{self.label} ({place})"

    def describe(self) -> dict[str, Any]:
        """Returns the output and the part."""
        return {"output": self.output_name, "index": self.index, "label": self.label}

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the number alone."""
        return (ClassScore(self.index, self.label, float(self.read(outputs)[0])),)

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_] | None:
        """Returns whether the class comes first whose logit it is; of any other number nothing tells."""
        return super().holds(outputs) if self.classes else None

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields whether the file corrects the output."""
        if self.output_name == outputs.metadata.class_output:
            yield from note_corrected_scores(outputs.metadata)


@dataclasses.dataclass(frozen=True)
class SettledValue(SettledPart):
    """One value of an output by its indices.

    Attributes:
        is_logit: whether the value is a class's logit.
        is_only: whether the output holds no other value.
    """

    index: Place
    is_logit: bool = dataclasses.field(default=False, kw_only=True, compare=False)
    is_only: bool = dataclasses.field(default=False, kw_only=True, compare=False)

    @property
    def name(self) -> str:
        """The output with the place, unless it holds no other value."""
        return self.output_name if self.is_only and self.label is None else super().name

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the values (M,)."""
        where: tuple[slice | int, ...] = (slice(None), *self.index)
        return np.asarray(outputs.values[self.output_name][where], np.float64)

    def score_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``value``."""
        return "value"

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields a note where the largest value was taken, which may be a coordinate."""
        yield from super().notes(outputs)
        if not self.given and outputs.values[self.output_name][0].size > 1:
            chosen = parameter("target", (Placeholder("I"), Placeholder("J")))
            yield (
                f"this is the largest of all values of {self.output_name!r}, and the file does not say what they are: "
                "where some are coordinates, it may be one of them; " + chosen + " chooses"
            )

    @property
    def classes(self) -> tuple[int, ...]:
        """The class whose logit it is."""
        return self.index[:1] if self.is_logit else ()

    @property
    def n_numbers(self) -> int:
        """The value alone."""
        return 1

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:
        """Returns where the value stands."""
        return np.array([flat_places(shape)[self.index]], np.intp)

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "logit" if self.is_logit else "value"


def value_labels(outputs: ModelOutputs, output: str) -> Sequence[str] | None:
    """Returns the labels of an output's values along their first axis; None where the file has none for them."""
    metadata, shape = outputs.metadata, outputs.values[output].shape[1:]
    fit = output == metadata.class_output and metadata.labels is not None and shape[:1] == (len(metadata.labels),)
    return metadata.labels if fit else None


def find_labelled(target: TargetWords, labels: Sequence[str] | None, shape: Sequence[int]) -> Place | None:
    """Returns the indices of the value that a label names; None where the target is no label of one value.

    Args:
        target: the target, see :data:`TargetWords`.
        labels: the labels along the first axis; None where they are unknown.
        shape: the shape of one image's output.

    Raises:
        TargetError: there is no such label.
    """
    is_word = isinstance(target, str) and target != TOP and parse_place(target) is None
    if labels is None or not is_word or any(length != 1 for length in shape[1:]):
        return None
    return (find_label(str(target), labels), *(0 for _ in shape[1:]))


def flat_places(shape: Sequence[int]) -> NDArray[np.intp]:
    """Returns an array of a shape that holds where each of its places stands when it is laid out flat."""
    return np.arange(math.prod(shape), dtype=np.intp).reshape(shape)


def gives_logits(metadata: Metadata, output: str) -> bool:
    """Tells whether an output's values are the classes' logits, whose gradients are those of class scores.

    Of a kind that is not known gradients are of the values as they are.
    """
    return output == metadata.class_output and metadata.output_kind in (None, "logits")


def refuse_log_odds(outputs: ModelOutputs, output: str) -> None:
    """Raises a MasktoolError where log-odds are asked for, which values of an output have none of."""
    if outputs.scale == "log-odds":
        raise MasktoolError(
            "log-odds are of classes' scores under masks", where=f"output {output!r}", fix="leave the score out"
        )


def name_place(output: str, place: Place | str) -> str:
    """Returns an output with the indices of one of its values, or of a part of it."""
    text = place if isinstance(place, str) else ", ".join(map(str, place))
    return output + (f"[{text}]" if text else "")


def parse_place(text: str) -> Place | None:
    """Returns the indices in a text such as ``5,0``; None where the text holds no indices."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        return None


def resolve_place(target: TargetWords, values: NDArray[np.floating], output: str) -> Place:
    """Returns the indices of the output value that a target names, one for every axis.

    Args:
        target: the target, see :data:`TargetWords`.
        values: one image's output, of any shape.
        output: the name of the output, for messages.

    Raises:
        TargetError: the target gives no indices, too few or too many, or one that is out of range.
    """
    shape = values.shape
    if target == TOP or (target is None and values.size == 1):
        return tuple(int(index) for index in np.unravel_index(int(np.argmax(values)), shape))
    if target is None:
        raise TargetError(
            f"output {output!r} holds many values",
            expected=f"one index for each axis of {show_axes(shape)}",
            fix=hint_place(output, shape),
        )
    place = parse_place(target) if isinstance(target, str) else target if isinstance(target, tuple) else (target,)
    if place is None or len(place) != len(shape):
        expected = f"{len(shape)} {'index' if len(shape) == 1 else 'indices with commas between them'}"
        raise TargetError(
            "no such value", where=f"target of output {output!r} {show_axes(shape)}", expected=expected, got=target
        )
    if not all(is_index(index, length) for index, length in zip(place, shape, strict=True)):
        raise TargetError(
            "no such value",
            where=f"target of output {output!r} {show_axes(shape)}",
            expected=", ".join(f"0 to {length - 1}" for length in shape),
            got=",".join(map(str, place)),
        )
    return tuple(operator.index(index) for index in place if not isinstance(index, slice))


def is_index(value: object, length: int) -> bool:
    """Tells whether a value is an index into an axis of some length; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(0 <= value < length)


def hint_place(output: str, shape: Sequence[int | None]) -> str:
    """Returns how to name one value of an output, as an example to copy.

    Args:
        output: the name of the output.
        shape: the shape of one image's output, without the batch axis; None for an axis of any length.
    """
    if not shape:
        return "for example " + parameter("output", output)
    example = parameters(output=output, target=(0,) * len(shape))
    return "for example " + example + " (or " + parameter("target", TOP) + " for its largest value)"


def show_axes(shape: Sequence[int | None]) -> str:
    """Returns the shape of one image's output as text."""
    return f"({', '.join('?' if length is None else str(length) for length in shape)})"
