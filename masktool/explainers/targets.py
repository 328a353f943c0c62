"""Which class to explain: the top prediction, an index or a label."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError

Target = str | int | None
"""``None`` and ``"top"``: the class with the highest score; an index, also as a string of digits; or a label."""

TOP = "top"
TOP_COUNT = 5
CLOSE_MATCHES = 3
CLOSE_CUTOFF = 0.5
"""difflib's ratio above which a label counts as a likely typing error; its default of .6 misses short words."""


class TargetError(MasktoolError):
    """There is no such class in this model, whatever the photograph."""


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """A class and its score with nothing missing."""

    index: int
    label: str | None
    score: float


def resolve_target(target: Target, scores: NDArray[np.floating], labels: Sequence[str] | None) -> int:
    """Returns the index of the class that is meant.

    Args:
        target: see :data:`Target`. Digits are an index even where a label consists of digits.
        scores: (K,) scores of the photograph.
        labels: one per class, where known.

    Raises:
        TargetError: an index out of range, an unknown label, or a label that several classes share.
    """
    if target is None or target == TOP:
        return int(np.argmax(scores))
    if isinstance(target, str):
        try:
            target = int(target)
        except ValueError:
            return find_label(str(target), labels)
    try:
        index = operator.index(target)
    except TypeError:
        index = -1
    if not 0 <= index < len(scores):
        raise TargetError("no such class", where="target", expected=f"an index from 0 to {len(scores) - 1}", got=target)
    return index


def find_label(name: str, labels: Sequence[str] | None) -> int:
    """Returns the index of a label: the exact one, else the one that differs in case only."""
    if labels is None:
        raise TargetError(
            "the model has no labels", where=f"target {name!r}", fix="give the class's index, or export with --labels"
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


def rank_scores(scores: NDArray[np.floating], target: int, labels: Sequence[str] | None) -> tuple[ClassScore, ...]:
    """Returns the five highest classes and the target, the highest first."""
    order = [int(index) for index in np.argsort(-scores, kind="stable")[:TOP_COUNT]]
    if target not in order:
        order.append(target)
    return tuple(ClassScore(index, label_of(index, labels), float(scores[index])) for index in order)


def label_of(index: int, labels: Sequence[str] | None) -> str | None:
    """Returns the label of a class, None where it has none."""
    return labels[index] if labels is not None and index < len(labels) else None
