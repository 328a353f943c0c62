"""A part of an output: the mean of its values there, such as of a region of a map or of some of many channels."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import (
    FEW_ROUNDINGS,
    TARGETS,
    Combined,
    Target,
    TargetError,
    TargetWords,
)
from masktool.explainers.targets.output_value import (
    SettledPart,
    flat_places,
    gives_logits,
    refuse_log_odds,
    show_axes,
)
from masktool.messages import Placeholder, parameters

MOST_NUMBERS = 3
"""Numbers of a slice: where it begins, ends, and its step."""


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class OutputSlice(Target):
    """The mean of a part of an output.

    Attributes:
        output: the name of the output.
        place: an index or slice for each axis of the output but the batch, as ``"0,2:5,:"`` or ``(0, slice(2, 5),
            slice(None))``.
    """

    name: ClassVar[str] = "slice"
    syntax: ClassVar[str] = parameters(output=Placeholder("NAME"), target=Placeholder("I,J:K,:"))
    summary: ClassVar[str] = "the mean of a part of an output, as it is"
    gradient: ClassVar[str] = "its own"

    output: str
    place: TargetWords

    @classmethod
    def from_words(cls, target: TargetWords, output: str | None) -> Self | None:
        """Returns the part where an output is named, and a slice stands among the indices."""
        holds_slice = isinstance(target, tuple) and any(isinstance(each, slice) for each in target)
        if output is None or not (holds_slice or (isinstance(target, str) and ":" in target)):
            return None
        return cls(output, target)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The output."""
        return (self.output,)

    def settle(self, outputs: ModelOutputs) -> SettledSlice:
        """Returns the part by where it begins and ends along each axis."""
        refuse_log_odds(outputs, self.output)
        shape = outputs.values[self.output][0].shape
        spans = resolve_slices(self.place, shape, self.output)
        text = ",".join(spell_span(span, length) for span, length in zip(spans, shape, strict=True))
        linear = gives_logits(outputs.metadata, self.output)
        return SettledSlice(text, output_name=self.output, spans=spans, are_logits=linear)


@dataclasses.dataclass(frozen=True)
class SettledSlice(SettledPart):
    """A part of an output.

    Attributes:
        spans: where the part of each axis but the batch begins and ends, and its step.
        are_logits: whether the values are classes' logits.
    """

    index: str
    spans: tuple[tuple[int, int, int], ...] = dataclasses.field(kw_only=True)
    are_logits: bool = dataclasses.field(default=False, kw_only=True, compare=False)

    def cut(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the values of the part, (M, n)."""
        values = outputs.values[self.output_name]
        where = (slice(None), *(slice(*span) for span in self.spans))
        return np.asarray(values[where], np.float64).reshape(len(values), -1)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the means (M,)."""
        means: NDArray[np.float64] = self.cut(outputs).mean(axis=1)
        return means

    def score_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``mean value``."""
        return "mean value"

    def describe(self) -> dict[str, Any]:
        """Returns the kind, the output and the part."""
        return {"kind": OutputSlice.name, **super().describe()}

    def rounding(self, outputs: ModelOutputs) -> float:
        """Returns the range up to which a map is rounding: that of the largest value."""
        return FEW_ROUNDINGS * float(np.spacing(np.abs(self.cut(outputs)[0]).max().astype(np.float32)))

    def evidence_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``mean values``."""
        return "mean values"

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes whose logits they are."""
        return tuple(range(*self.spans[0])) if self.are_logits and self.spans else ()

    @property
    def n_numbers(self) -> int:
        """The number of values in the part."""
        return math.prod(len(range(*span)) for span in self.spans)

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:
        """Returns where the values of the part stand."""
        return flat_places(shape)[tuple(slice(*span) for span in self.spans)].reshape(-1)

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns the means, in which all values weigh the same."""
        return Combined(numbers.mean(axis=1), np.full_like(numbers, 1 / numbers.shape[1]))

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "mean logit" if self.are_logits else "mean value"


def resolve_slices(target: TargetWords, shape: Sequence[int], output: str) -> tuple[tuple[int, int, int], ...]:
    """Returns the part of each axis that a target names.

    Args:
        target: an index or slice for each axis.
        shape: the shape of one image's output.
        output: the name of the output, for messages.

    Raises:
        TargetError: there are too few or too many, or one is out of range, empty or no slice.
    """
    parts = parse_slices(target) if isinstance(target, str) else target if isinstance(target, tuple) else (target,)
    where = f"target of output {output!r} {show_axes(shape)}"
    if parts is None or len(parts) != len(shape):
        expected = f"{len(shape)} indices or slices with commas between them, such as 0 or 2:5 or :"
        raise TargetError("no such part", where=where, expected=expected, got=target)
    spans = [span_of(part, length) for part, length in zip(parts, shape, strict=True)]
    if None in spans:
        axis = spans.index(None)
        raise TargetError(
            "no such part",
            where=f"{where}, axis {axis}",
            expected=f"an index from 0 to {shape[axis] - 1}, or a slice within 0:{shape[axis]} that is not empty",
            got=spell_part(parts[axis]),
        )
    return tuple(span for span in spans if span is not None)


def parse_slices(text: str) -> tuple[int | slice, ...] | None:
    """Returns the indices and slices in a text such as ``0,2:5,:``; None where the text holds others."""
    try:
        return tuple(parse_slice(part) for part in text.split(","))
    except ValueError:
        return None


def parse_slice(text: str) -> int | slice:
    """Returns one index or slice; ValueError where the text is none."""
    if ":" not in text:
        return int(text)
    numbers = [int(part) if part.strip() else None for part in text.split(":")]
    if len(numbers) > MOST_NUMBERS:
        raise ValueError(text)
    return slice(*numbers)


def span_of(part: object, length: int) -> tuple[int, int, int] | None:
    """Returns the part of an axis of a length; None where it is out of range, empty, or neither index nor slice."""
    if isinstance(part, bool | np.bool_):
        return None
    try:
        if isinstance(part, slice):
            start, step = (
                default if each is None else operator.index(each)
                for each, default in zip((part.start, part.step), (0, 1), strict=True)
            )
            stop = length if part.stop is None else operator.index(part.stop)
        else:
            start, step = operator.index(part), 1  # type: ignore[arg-type]  # whatever is no index raises TypeError
            stop = start + 1
    except TypeError:
        return None
    return (start, stop, step) if 0 <= start < stop <= length and step > 0 else None


def spell_span(span: tuple[int, int, int], length: int) -> str:
    """Returns the part of an axis of a length as text: an index, ``:``, ``2:5`` or ``0:9:2``."""
    start, stop, step = span
    if stop == start + 1:
        return str(start)
    if span == (0, length, 1):
        return ":"
    return f"{start}:{stop}" + ("" if step == 1 else f":{step}")


def spell_part(part: object) -> str:
    """Returns an index or slice as it is typed."""
    if not isinstance(part, slice):
        return str(part)
    numbers = (part.start, part.stop) if part.step is None else (part.start, part.stop, part.step)
    return ":".join("" if each is None else str(each) for each in numbers)
