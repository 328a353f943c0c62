"""A class: the one with the highest score, or one that is named by its index or label."""

from __future__ import annotations

import dataclasses
import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import (
    SLUG_LENGTH,
    TARGETS,
    TOP,
    ClassScore,
    SettledTarget,
    Target,
    TargetError,
    TargetWords,
    shorten_label,
)
from masktool.messages import Placeholder, parameter
from masktool.runtime.scores import LOGIT_NAMES, note_corrected_scores, note_unknown_scores

TOP_COUNT = 5
CLOSE_MATCHES = 3
CLOSE_CUTOFF = 0.5
"""difflib's ratio above which a label counts as a likely typing error; its default of .6 misses short words."""
PLACES = re.compile(r"[\d\s:,+-]*[:,][\d\s:,+-]*")
"""Indices or slices, with commas between them: places in an output, unless a label reads like that."""
NEAR_ONE = 2.0**-24
"""Distance between neighbouring float32 numbers just below 1."""
ROUNDINGS = 16
"""Roundings within which a probability counts as rounded to 1: a softmax of many classes adds up about as many."""


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class ClassTarget(Target):
    """The score of one class.

    Attributes:
        which: the class's index or label; None or ``top`` for the class with the highest score.
    """

    name: ClassVar[str] = "class"
    syntax: ClassVar[str] = parameter("target", Placeholder("top|INDEX|LABEL"))
    summary: ClassVar[str] = "a class's probability, or its log-odds"
    gradient: ClassVar[str] = "its logit"
    is_general: ClassVar[bool] = True

    which: TargetWords = None

    @classmethod
    def from_words(cls, target: TargetWords, output: str | None) -> Self | None:
        """Returns the class where no output is named."""
        return cls(target) if output is None else None

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The class output."""
        return (None,)

    def settle(self, outputs: ModelOutputs) -> SettledClass:
        """Returns the class by its index."""
        labels = outputs.metadata.labels
        index = resolve_target(self.which, outputs.class_scores[0], labels)
        return SettledClass(index, label_of(index, labels), given=self.which not in (None, TOP))


@dataclasses.dataclass(frozen=True)
class SettledClass(SettledTarget):
    """A class by its index."""

    index: int

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The class output."""
        return (None,)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the class's scores (M,)."""
        return outputs.class_scores[:, self.index].astype(np.float64)

    def score_name(self, outputs: ModelOutputs) -> str:
        """Returns ``probability``, ``log-odds`` or ``score``."""
        return outputs.score_name

    @property
    def name(self) -> str:
        """The label, or ``class 3``."""
        return self.label or f"class {self.index}"

    @property
    def title(self) -> str:
        """The label, cut where it is long, and the index."""
        return self.name if self.label is None else f"{shorten_label(self.label)} ({self.index})"

    @property
    def slug(self) -> str:
        """The index and, where known, the label."""
        label = re.sub(r"\W+", "_", self.label or "").strip("_")[:SLUG_LENGTH]
        return f"{self.index}-{label}" if label else str(self.index)

    def describe(self) -> dict[str, Any]:
        """Returns index and label."""
        return {"index": self.index, "label": self.label}

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the five classes with the highest scores and the target, the highest first."""
        return rank_scores(outputs.class_scores[0], self.index, outputs.metadata.labels)

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields what the file leaves open about its scores, and whether it corrects them."""
        yield from note_class_scores(outputs.metadata)

    def precision_notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields a note where a probability is 0 or rounded to 1, which hides small changes, with what shows them."""
        score = float(self.read(outputs)[0])
        yield from note_saturation(outputs, score, log_odds_tell_more=self.log_odds_tell_more(outputs))

    def log_odds_tell_more(self, outputs: ModelOutputs) -> bool:
        """Tells whether log-odds still vary where the class's probability is rounded, because the rest is not."""
        kind, scores = outputs.metadata.output_kind, outputs.class_scores[0]
        if kind == "probabilities":
            return float(scores[self.index]) > 0 and bool(np.delete(scores, self.index).any())
        if kind == "binary-probability":  # the positive class's is given, the negative one's is 1 - p
            return self.index == 0 and bool(scores.all())
        return kind != "sigmoid"

    def evidence(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the class's logits (M,), up to a number that all classes of an image share."""
        return outputs.class_logits[:, self.index]

    def evidence_name(self, outputs: ModelOutputs) -> str:
        """Returns ``logits``, ``log-probabilities`` or ``log-odds``."""
        return name_logits(outputs)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class."""
        return (self.index,)


def name_logits(outputs: ModelOutputs) -> str:
    """Returns the word for what stands for logits in a file whose kind is known."""
    kind = outputs.metadata.output_kind
    return "scores" if kind is None else LOGIT_NAMES[kind]


def note_saturation(outputs: ModelOutputs, score: float, *, log_odds_tell_more: bool) -> Iterator[str]:
    """Yields a note where a probability is 0 or rounded to 1, which hides small changes, with what shows them.

    Args:
        outputs: the outputs of the image.
        score: the score of what is explained.
        log_odds_tell_more: whether log-odds still vary where the probability is rounded.
    """
    if outputs.score_name != "probability" or (score != 0 and 1 - score > ROUNDINGS * NEAR_ONE):
        return
    metadata = outputs.metadata
    if log_odds_tell_more:
        shown = " shows them" if metadata.takes_mask else " shows them, of a file that takes a mask"
        more: str = parameter("score", "log-odds") + shown
    else:
        end = "softmax" if metadata.output_kind == "probabilities" else "sigmoid"
        more = f"the graph takes its {end} itself: exported from in front of it, with its kind, it can show more"
    exact = f"exactly {score:g}" if score in (0.0, 1.0) else f"within {ROUNDINGS} roundings of 1"
    yield f"the probability is {exact} in float32: smaller changes than it can tell leave no trace in the map; " + more


def note_class_scores(metadata: Metadata) -> Iterator[str]:
    """Yields what the reader of classes' scores must know of the file."""
    yield from note_corrected_scores(metadata)
    yield from note_unknown_scores(metadata)


def resolve_target(target: TargetWords, scores: NDArray[np.floating], labels: Sequence[str] | None) -> int:
    """Returns the index of the class that a target names.

    Args:
        target: the target, see :data:`TargetWords`. Digits are an index even where a label consists of digits.
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
    if PLACES.fullmatch(name) and name not in (labels or ()):
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


def rank_scores(scores: NDArray[np.floating], target: int, labels: Sequence[str] | None) -> tuple[ClassScore, ...]:
    """Returns the five classes with the highest scores and the target, the highest first."""
    order = [int(index) for index in np.argsort(-scores, kind="stable")[:TOP_COUNT]]
    if target not in order:
        order.append(target)
    return tuple(ClassScore(index, label_of(index, labels), float(scores[index])) for index in order)


def label_of(index: int, labels: Sequence[str] | None) -> str | None:
    """Returns the label of a class; None where the class has none."""
    return labels[index] if labels is not None and index < len(labels) else None
