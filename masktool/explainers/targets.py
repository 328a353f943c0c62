"""The target of an explanation: the top class, a class by index or label, or one value of an output."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.messages import Placeholder, parameter, parameters

Target = str | int | tuple[int, ...] | None
"""The target of an explanation. A class: None or ``"top"`` for the class with the highest score; an index, also as a
string of digits; or a label. Where an output is named, one of its values: indices into all axes of the output but the
batch, as numbers or as ``"5,0"``; ``"top"`` for its largest value; None where the output has one value only."""
Place = tuple[int, ...]
"""Indices into the axes of one image's output."""

TOP = "top"
TOP_COUNT = 5
CLOSE_MATCHES = 3
CLOSE_CUTOFF = 0.5
"""difflib's ratio above which a label counts as a likely typing error; its default of .6 misses short words."""


class TargetError(MasktoolError):
    """The model has no such class or output value, so that no photograph can be explained for it."""


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """A class, or a value of an output, and its score with nothing missing."""

    index: int | Place
    label: str | None
    score: float


def resolve_target(target: Target, scores: NDArray[np.floating], labels: Sequence[str] | None) -> int:
    """Returns the index of the class that a target names.

    Args:
        target: the target, see :data:`Target`. Digits are an index even where a label consists of digits.
        scores: the scores (K,) of the photograph.
        labels: one label per class; None where they are unknown.

    Raises:
        TargetError: the index is out of range, or the label is unknown or shared by several classes.
    """
    if target is None or target == TOP:
        return int(np.argmax(scores))
    if isinstance(target, str):
        try:
            target = int(target)
        except ValueError:
            return find_label(str(target), labels)
    if isinstance(target, tuple):
        raise several_indices(target)
    try:
        index = -1 if isinstance(target, bool) else operator.index(target)
    except TypeError:
        index = -1
    if not 0 <= index < len(scores):
        raise TargetError("no such class", where="target", expected=f"an index from 0 to {len(scores) - 1}", got=target)
    return index


def find_label(name: str, labels: Sequence[str] | None) -> int:
    """Returns the index of the class with a label: the exact label, else the one that differs in case only."""
    if parse_place(name):
        raise several_indices(name)
    if labels is None:
        raise TargetError(
            "the model has no labels",
            where=f"target {name!r}",
            fix="give the class's index, or export with " + parameter("labels"),
        )
    for wanted, candidates in ((name, labels), (name.casefold(), [label.casefold() for label in labels])):
        indices = [index for index, label in enumerate(candidates) if label == wanted]
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise TargetError("several classes share this label", where=f"target {name!r}", fix=f"use {indices}")
    folded = {label.casefold(): label for label in labels}
    containing = [label for label in folded if name.casefold() in label]
    similar = difflib.get_close_matches(name.casefold(), folded, CLOSE_MATCHES, CLOSE_CUTOFF)
    close = list(dict.fromkeys(containing + similar))[:CLOSE_MATCHES]
    hint = (
        f"did you mean {', '.join(repr(folded[label]) for label in close)}?"
        if close
        else "masktool info lists the labels"
    )
    raise TargetError("unknown label", where=f"target {name!r}", fix=hint)


def several_indices(target: object) -> TargetError:
    """Returns the error for a target of several indices where no output was named."""
    return TargetError(
        "several indices are for an output",
        where=f"target {target}",
        fix="name the output with " + parameter("output", Placeholder("NAME")) + ", or give one class",
    )


def parse_place(text: str) -> Place | None:
    """Returns the indices in a text such as ``5,0``; None where the text holds no indices."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        return None


def resolve_place(target: Target, values: NDArray[np.floating], output: str) -> Place:
    """Returns the indices of the output value that a target names, one for every axis.

    Args:
        target: the target, see :data:`Target`.
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
    return tuple(int(index) for index in place)


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


def rank_scores(scores: NDArray[np.floating], target: int, labels: Sequence[str] | None) -> tuple[ClassScore, ...]:
    """Returns the five classes with the highest scores and the target, the highest first."""
    order = [int(index) for index in np.argsort(-scores, kind="stable")[:TOP_COUNT]]
    if target not in order:
        order.append(target)
    return tuple(ClassScore(index, label_of(index, labels), float(scores[index])) for index in order)


def label_of(index: int, labels: Sequence[str] | None) -> str | None:
    """Returns the label of a class; None where the class has none."""
    return labels[index] if labels is not None and index < len(labels) else None
