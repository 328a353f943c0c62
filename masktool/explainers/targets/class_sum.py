"""Several classes as one: the sum of their probabilities.

Of classes that exclude one another the sum is the probability of the class that merging them makes. Its logit is

    z = log sum over its classes k of exp z_k,  and  d z / d z_k = exp(z_k - z)

since p_k is exp z_k over one number. Independent classes have a sum of probabilities, which is how many of them are to
be expected, but no such logit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import (
    TARGETS,
    ClassScore,
    Combined,
    SettledTarget,
    Target,
    TargetError,
    TargetLike,
    shorten_label,
)
from masktool.explainers.targets.class_target import (
    ClassTarget,
    SettledClass,
    name_logits,
    note_class_scores,
    note_saturation,
)
from masktool.messages import Placeholder, parameter, parameters
from masktool.option_checks import check_several

LONGEST_TITLE = 60
"""Largest number of characters in a picture's title."""
FEWEST_CLASSES = 2


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class ClassSum(Target):
    """The sum of the probabilities of several classes.

    Attributes:
        members: the classes: indices, labels, ``top``, or targets.
    """

    name: ClassVar[str] = "sum"
    syntax: ClassVar[str] = parameters(target=Placeholder("A"), sum_with=Placeholder("B"))
    summary: ClassVar[str] = "several classes as one: the sum of their probabilities"
    gradient: ClassVar[str] = "of classes that exclude one another, in a pass for each"

    members: Sequence[TargetLike]

    def __post_init__(self) -> None:
        check_several("members", self.members)
        classes = tuple(each if isinstance(each, Target) else ClassTarget(each) for each in self.members)
        for each in classes:
            if not isinstance(each, ClassTarget):
                raise MasktoolError("a sum is of classes", where=f"target {each}", expected="indices or labels")
        if len(classes) < FEWEST_CLASSES:
            raise MasktoolError("a sum of one class", expected=f"at least {FEWEST_CLASSES}", got=len(classes))
        object.__setattr__(self, "members", classes)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The class output."""
        return (None,)

    def settle(self, outputs: ModelOutputs) -> SettledSum:
        """Returns the classes by their indices."""
        found = [each.settle(outputs) for each in self.members if isinstance(each, ClassTarget)]
        members = tuple(sorted(found, key=lambda each: each.index))
        kind = outputs.metadata.output_kind
        settled = SettledSum(
            tuple(each.index for each in members),
            given=all(each.given for each in members),
            members=members,
            is_exclusive=kind != "sigmoid",
        )
        check_members(settled, outputs)
        return settled


@dataclasses.dataclass(frozen=True)
class SettledSum(SettledTarget):
    """Several classes by their indices.

    Attributes:
        members: the classes, by ascending index.
        is_exclusive: whether classes exclude one another.
    """

    index: tuple[int, ...]
    members: tuple[SettledClass, ...] = dataclasses.field(kw_only=True)
    is_exclusive: bool = dataclasses.field(kw_only=True)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The class output."""
        return (None,)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the sums of probabilities (M,), or the log-odds of these."""
        if outputs.scale == "probability":
            return outputs.class_scores[:, self.index].sum(axis=1, dtype=np.float64)
        others = np.delete(outputs.class_logits, self.index, axis=1)
        return self.evidence(outputs) - add_exponentials(others)

    def score_name(self, outputs: ModelOutputs) -> str:
        """Returns ``probability``, ``log-odds``, or of independent classes ``sum of probabilities``."""
        return outputs.score_name if self.is_exclusive else "sum of probabilities"

    def ranked_name(self, outputs: ModelOutputs) -> str:
        """Returns the word for the score of one class."""
        return outputs.score_name

    @property
    def name(self) -> str:
        """Such as ``cat or dog``; of independent classes ``cat + dog``."""
        return self.joint.join(each.name for each in self.members)

    @property
    def joint(self) -> str:
        """What stands between the names of the classes."""
        return " or " if self.is_exclusive else " + "

    @property
    def title(self) -> str:
        """The titles of the classes, cut where they are long."""
        return shorten_label(self.joint.join(each.title for each in self.members), LONGEST_TITLE)

    @property
    def slug(self) -> str:
        """The classes' indices as part of a file's name."""
        return "sum-" + "-".join(map(str, self.index))

    def describe(self) -> dict[str, Any]:
        """Returns indices and labels."""
        return {"kind": ClassSum.name, "index": self.index, "label": [each.label for each in self.members]}

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the five classes with the highest scores, and those of the sum."""
        every = [score for each in self.members for score in each.ranked(outputs)]
        return tuple(sorted({each.index: each for each in every}.values(), key=lambda each: -each.score))

    def includes(self, index: object) -> bool:
        """Tells whether a class is one of the sum's."""
        return index in self.index

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields whether the file corrects its scores."""
        yield from note_class_scores(outputs.metadata)

    def precision_notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields a note where the sum is 0 or rounded to 1."""
        if self.is_exclusive:
            more = outputs.metadata.output_kind == "logits"
            yield from note_saturation(outputs, float(self.read(outputs)[0]), log_odds_tell_more=more)

    def evidence(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the logits (M,) of the class that merging them makes."""
        return add_exponentials(outputs.class_logits[:, self.index])

    def evidence_name(self, outputs: ModelOutputs) -> str:
        """Returns ``logits`` or ``log-probabilities``; of independent classes what is no logit."""
        return name_logits(outputs) if self.is_exclusive else "sums of probabilities"

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, if they exclude one another."""
        return self.index if self.is_exclusive else ()

    @property
    def is_linear(self) -> bool:
        """That of a logarithm of sums is none."""
        return False

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns the logits of the merged class, and the share of each class in it."""
        values = add_exponentials(numbers)
        return Combined(values, np.exp(numbers - values[:, None]))

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "logit of the sum"

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error for independent classes, whose sum has no logit."""
        return MasktoolError(
            f"{title} explains logits, and a sum of independent classes has none",
            where=self.name,
            fix="explain the classes one by one",
        )


def add_exponentials(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns the logarithms (N,) of the sums of the exponentials of logits (N, C); the largest is taken out first."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.log(np.exp(wide - peak).sum(axis=1)) + peak[:, 0]
    return found


def check_members(target: SettledSum, outputs: ModelOutputs) -> None:
    """Raises a MasktoolError where classes have no sum, or one that says nothing.

    Raises:
        TargetError: what is wrong does not depend on the image.
    """
    metadata = outputs.metadata
    if metadata.output_kind is None:
        raise TargetError(
            "a sum of scores of unknown kind", where=target.name, fix="export with " + parameter("output_kind")
        )
    if len(set(target.index)) < len(target.index):
        error = TargetError if target.given else MasktoolError
        raise error("a class is twice in the sum", where=target.name)
    if not target.is_exclusive and outputs.scale == "log-odds":
        raise MasktoolError(
            "a sum of independent classes has no log-odds", where=target.name, fix="leave the score out"
        )
    if target.is_exclusive and len(target.index) == outputs.class_scores.shape[1]:
        raise TargetError("the probabilities of all classes sum to 1, whatever is missing", where=target.name)
