"""One target against another: why A and not B.

    a(x) explains  z_A - z_B

z are logits. Of classes that exclude one another the softmax's sum drops out of the difference of the logarithms of two
probabilities, and with it every other class: log p_A - log p_B = z_A - z_B. So a file that gives probabilities is asked
about their logarithms, one of independent classes about log-odds, and what was taken stands in the explanation. Values
of outputs are taken as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata, Size
from masktool.errors import MasktoolError
from masktool.explainers.marks import Mark
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.subject import Subject
from masktool.explainers.target import (
    FEW_ROUNDINGS,
    TARGETS,
    ClassScore,
    Combined,
    OutputShape,
    SettledTarget,
    Target,
    TargetError,
    TargetLike,
    shorten_label,
)
from masktool.explainers.targets.class_target import ClassTarget
from masktool.messages import Placeholder, parameter, parameters
from masktool.runtime.gradients import describe_differentiated
from masktool.runtime.inputs import Inputs
from masktool.runtime.scores import LEAST
from masktool.runtime.session import MaskedSession

LONGEST_SIDE = 30
"""Largest number of characters of either side in a picture's title."""


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class Contrast(Target):
    """One target against another.

    Attributes:
        first: what is explained: a class by its index, label or ``top``; or any target but a contrast.
        against: what it is compared with, likewise.
    """

    name: ClassVar[str] = "contrast"
    syntax: ClassVar[str] = parameters(target=Placeholder("A"), against=Placeholder("B"))
    summary: ClassVar[str] = "why A and not B: the difference of their logits"
    gradient: ClassVar[str] = "yes, in a pass for either class; of two values of one output in one pass"

    first: TargetLike
    against: TargetLike

    def __post_init__(self) -> None:
        for name in ("first", "against"):
            side = getattr(self, name)
            object.__setattr__(self, name, side if isinstance(side, Target) else ClassTarget(side))

    @property
    def sides(self) -> tuple[Target, Target]:
        """Both targets."""
        assert isinstance(self.first, Target)  # as __post_init__ left them
        assert isinstance(self.against, Target)
        return self.first, self.against

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The outputs of both."""
        return tuple(dict.fromkeys(name for side in self.sides for name in side.outputs))

    @property
    def names_outputs(self) -> bool:
        """Whether those of both are known."""
        return all(side.names_outputs for side in self.sides)

    def refuse_gradient(self, title: str) -> MasktoolError | None:
        """Returns the error of a side that has no gradient."""
        return next(filter(None, (side.refuse_gradient(title) for side in self.sides)), None)

    @property
    def lists(self) -> tuple[str, ...]:
        """The outputs of which either takes lists too."""
        return tuple(dict.fromkeys(name for side in self.sides for name in side.lists))

    def fit(self, shapes: Mapping[str, OutputShape], size: Size, metadata: Metadata | None = None) -> Contrast:
        """Returns both as they are of a model."""
        return Contrast(*(side.fit(shapes, size, metadata) for side in self.sides))

    def look_up(self, session: MaskedSession, subject: Subject, inputs: Inputs | None) -> Contrast:
        """Returns the contrast of both with what they have to know."""
        return Contrast(*(side.look_up(session, subject, inputs) for side in self.sides))

    def settle(self, outputs: ModelOutputs) -> SettledContrast:
        """Returns both by their places in the outputs."""
        first, against = (side.settle(outputs) for side in self.sides)
        check_sides(first, against, outputs)
        return SettledContrast(first.index, first.label, given=first.given, first=first, against=against)


@dataclasses.dataclass(frozen=True)
class SettledContrast(SettledTarget):
    """One settled target against another.

    Attributes:
        first: what is explained.
        against: what it is compared with.
    """

    first: SettledTarget = dataclasses.field(kw_only=True)
    against: SettledTarget = dataclasses.field(kw_only=True)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The outputs of both."""
        return tuple(dict.fromkeys((*self.first.outputs, *self.against.outputs)))

    @property
    def output(self) -> str | None:
        """The name of the output of the first; None for classes."""
        return self.first.output

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the differences (M,)."""
        return self.first.evidence(outputs) - self.against.evidence(outputs)

    def score_name(self, outputs: ModelOutputs) -> str:
        """Returns such as ``difference of logits``."""
        return f"difference of {self.first.evidence_name(outputs)}"

    @property
    def name(self) -> str:
        """Such as ``cat against dog``."""
        return f"{self.first.name} against {self.against.name}"

    @property
    def title(self) -> str:
        """Both titles, cut where they are long."""
        sides = (shorten_label(side.title, LONGEST_SIDE) for side in (self.first, self.against))
        return " against ".join(sides)

    @property
    def slug(self) -> str:
        """Both as parts of a file's name."""
        return f"{self.first.slug}-against-{self.against.slug}"

    def describe(self) -> dict[str, Any]:
        """Returns the first, and under ``against`` the second."""
        return {"kind": Contrast.name, **self.first.describe(), "against": self.against.describe()}

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns what is highest, and both."""
        found = self.first.ranked(outputs)
        seen = {each.index for each in found}
        others = self.against.ranked(outputs)
        return (*found, *(each for each in others if self.against.includes(each.index) and each.index not in seen))

    def ranked_name(self, outputs: ModelOutputs) -> str:
        """Returns the word for the scores of each, which are no differences."""
        return self.first.ranked_name(outputs)

    @property
    def most_passes(self) -> int | None:
        """The fewer of those of both."""
        return min(
            (side.most_passes for side in (self.first, self.against) if side.most_passes is not None), default=None
        )

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The boxes of the first; that of the second among them is drawn as boldly."""
        bold = {each.box for side in (self.first, self.against) for each in side.marks if each.chosen}
        return tuple(each._replace(chosen=each.box in bold) for each in self.first.marks)

    def includes(self, index: object) -> bool:
        """Tells whether a score is the first's, or a part of it."""
        return self.first.includes(index)

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields the notes of both."""
        yield from dict.fromkeys((*self.first.notes(outputs), *self.against.notes(outputs)))

    def precision_notes(self, outputs: ModelOutputs) -> Iterator[str]:
        """Yields a note where the logarithm of a probability of 0 had to be taken."""
        if self.first.evidence_name(outputs) == "log-probabilities" and self.lowest(outputs) <= np.log(LEAST):
            yield (
                "a probability is 0 in float32, and its logarithm is taken as that of the least number: smaller ones "
                "leave no trace in the map"
            )

    def lowest(self, outputs: ModelOutputs) -> float:
        """Returns the lower of the two sides with nothing missing."""
        return float(min(self.first.evidence(outputs)[0], self.against.evidence(outputs)[0]))

    def rounding(self, outputs: ModelOutputs) -> float:
        """Returns the range up to which a map is rounding: that of the larger side, of logarithms at least 1's."""
        sides = [abs(float(side.evidence(outputs)[0])) for side in (self.first, self.against)]
        least = 1.0 if "log-" in self.first.evidence_name(outputs) else 0.0
        return FEW_ROUNDINGS * float(np.spacing(np.float32(max(*sides, least))))

    @property
    def classes(self) -> tuple[int, ...]:
        """The first's classes and the second's, if both are functions of logits."""
        both = (self.first.classes, self.against.classes)
        return (*both[0], *both[1]) if all(both) else ()

    @property
    def n_numbers(self) -> int:
        """The numbers of both, if both are functions of classes' logits, or of values of one output."""
        both = (self.first.n_numbers, self.against.n_numbers)
        return sum(both) if all(both) and (self.classes or self.first.outputs == self.against.outputs) else 0

    @property
    def is_linear(self) -> bool:
        """Whether both are."""
        return self.first.is_linear and self.against.is_linear

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:
        """Returns those of the first, and of the second behind them."""
        return np.concatenate([self.first.places(shape), self.against.places(shape)])

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns the differences, and what the numbers of the first and the second weigh in them."""
        count = self.first.n_numbers
        first, against = self.first.combine(numbers[:, :count]), self.against.combine(numbers[:, count:])
        weights = np.concatenate([first.weights, -against.weights], axis=1)
        return Combined(first.values - against.values, weights)

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "difference of logits" if self.classes else "difference"

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error of the side that has no gradient, or of sides that are of different outputs."""
        if self.first.n_numbers and self.against.n_numbers:
            return MasktoolError(
                f"{title} needs one gradient, and a file holds those of one output",
                where=self.name,
                got=", ".join(map(describe_differentiated, self.outputs)),
                fix="take a method that needs none, such as occlusion or lime",
            )
        return (self.against if self.first.n_numbers else self.first).refuse_gradient(title)

    def region_pixels(
        self, size: tuple[int, int], crop_box: tuple[float, float, float, float]
    ) -> NDArray[np.bool_] | None:
        """Returns the pixels of the first's region."""
        return self.first.region_pixels(size, crop_box)

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        """Returns whether the first is above the second, (M,)."""
        return self.read(outputs) > 0


def check_sides(first: SettledTarget, against: SettledTarget, outputs: ModelOutputs) -> None:
    """Raises a MasktoolError where there is no difference between two targets, or none that means anything.

    Raises:
        TargetError: what is wrong does not depend on the image.
    """
    where = f"{first.name} against {against.name}"
    if outputs.scale == "log-odds":
        raise MasktoolError("a contrast is of logits, whatever the score", where=where, fix="leave the score out")
    if isinstance(first, SettledContrast) or isinstance(against, SettledContrast):
        raise TargetError("a contrast of contrasts", where=where, expected="classes, sums of classes, or values")
    if first == against:
        error = TargetError if first.given and against.given else MasktoolError
        raise error("a target against itself", where=where, fix="name another with " + parameter("against"))
    if None in (*first.outputs, *against.outputs) and outputs.metadata.output_kind is None:
        raise TargetError(
            "a contrast of classes needs logits or probabilities",
            where=where,
            got=f"output {outputs.metadata.class_output!r} of unknown kind",
            fix="export with " + parameter("output_kind") + ", or name the output to take values as they are",
        )
    names = [side.evidence_name(outputs) for side in (first, against)]
    if names[0] != names[1]:
        raise TargetError("a contrast of different things", where=where, expected=names[0], got=names[1])
