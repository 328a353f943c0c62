"""Targets: what is explained, as one number that is made of a model's outputs; and all kinds of them by name.

A kind of target is one file under ``targets/``, found by looking into that package: a :class:`Target`, which is what
the user means, and the :class:`SettledTarget` that it becomes once one image's outputs are known.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata, Size
from masktool.errors import MasktoolError
from masktool.explainers.marks import Mark
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.subject import Subject
from masktool.registry import ClassRegistry
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession

Place = tuple[int, ...]
"""Indices into the axes of one image's output."""
OutputShape = tuple[int | None, ...]
"""The shape of an output; None for an axis of any length."""
TOP = "top"
FEW_ROUNDINGS = 4
"""Roundings of a score within which a map's values are noise: the difference of two scores has two, sums have a few."""
LONGEST_LABEL = 36
"""Largest number of characters of a label in a picture's title."""
SLUG_LENGTH = 40
"""Most characters of a label in a file's name."""


class TargetError(MasktoolError):
    """The model has no such class or output value, so that no photograph can be explained for it."""


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """A class, or a value of an output, and its score with nothing missing."""

    index: int | Place | str
    label: str | None
    score: float


@dataclasses.dataclass(frozen=True)
class Combined:
    """What a target makes of the numbers that it is a function of, in N images.

    Attributes:
        values: what it makes of them, (N,).
        weights: the derivatives with respect to the numbers, (N, P).
    """

    values: NDArray[np.floating[Any]]
    weights: NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True)
class SettledTarget(abc.ABC):
    """A target whose words have become places in the outputs of one image.

    Attributes:
        index: the index of the class, or what stands for it: several indices, or a slice as text.
        label: the label of the class; None where there is none.
        given: whether the user named it; otherwise it is the class or value with the highest score.
    """

    index: int | Place | str
    label: str | None = None
    given: bool = dataclasses.field(default=True, kw_only=True, compare=False)

    @property
    @abc.abstractmethod
    def outputs(self) -> tuple[str | None, ...]:
        """The names of the outputs that it is made of; None stands for the class output."""

    @abc.abstractmethod
    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the numbers (M,) that it makes of the outputs of M images."""

    @abc.abstractmethod
    def score_name(self, outputs: ModelOutputs) -> str:
        """Returns the word for such a number, such as ``probability``: the unit of maps and colour bars."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The target in words: a label, ``class 3``, ``boxes[5, 0]`` or ``cat against dog``."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what it is, but for the number, as JSON values."""

    @abc.abstractmethod
    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the highest scores of one image, with those that it is made of among them."""

    def ranked_name(self, outputs: ModelOutputs) -> str:
        """Returns the word for the scores of :meth:`ranked`."""
        return self.score_name(outputs)

    @property
    def title(self) -> str:
        """The target in a picture's title, where there is little room."""
        return self.name

    @property
    def slug(self) -> str:
        """The target as part of a file's name."""
        return re.sub(r"\W+", "-", self.name).strip("-")

    @property
    def output(self) -> str | None:
        """The name of the output whose values are explained as they are; None for classes."""
        return None

    @property
    def most_passes(self) -> int | None:
        """The largest number of passes that are spent on it where the user leaves all open; None for the method's."""
        return None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The boxes to draw in the picture."""
        return ()

    def includes(self, index: object) -> bool:
        """Tells whether a score that :meth:`ranked` gave is what is explained, or a part of it."""
        return index == self.index

    def notes(self, outputs: ModelOutputs) -> Iterator[str]:  # noqa: ARG002
        """Yields what the reader of a map must know of the number, from the outputs of the image."""
        yield from ()

    def precision_notes(self, outputs: ModelOutputs) -> Iterator[str]:  # noqa: ARG002
        """Yields what single precision hides of the number, for maps that are made of it."""
        yield from ()

    def rounding(self, outputs: ModelOutputs) -> float:
        """Returns the range of values up to which a map is the rounding of the number in float32."""
        return FEW_ROUNDINGS * float(np.spacing(np.abs(self.read(outputs)[0]).astype(np.float32)))

    def evidence(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the numbers (M,) whose difference from another target's is a contrast."""
        return self.read(outputs)

    def evidence_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns the word for such numbers, in the plural."""
        return "values"

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of whose logits it is a function, in whose gradients its own is found; empty where it is none."""
        return ()

    @property
    def n_numbers(self) -> int:
        """How many numbers it is a function of: its classes' logits, or values of its output; 0 for no gradient."""
        return len(self.classes)

    @property
    def is_linear(self) -> bool:
        """Whether its derivatives with respect to these numbers are the same, whatever the numbers are."""
        return True

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:  # noqa: ARG002
        """Returns where these numbers stand among the values of an output, laid out flat, (P,).

        Args:
            shape: the shape of one image's output.
        """
        return np.array(self.classes, np.intp)

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns what it makes of these numbers (N, P), which may be log-probabilities; of one number that itself."""
        return Combined(numbers[:, 0], np.ones_like(numbers))

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "logit"

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error for a method that needs gradients, which it has none of."""
        return explains_classes(title, self)

    def region_pixels(
        self,
        size: tuple[int, int],  # noqa: ARG002
        crop_box: tuple[float, float, float, float],  # noqa: ARG002
    ) -> NDArray[np.bool_] | None:
        """Returns the pixels of the region that it is of, (H0, W0), to be drawn in the picture; None for no region.

        Args:
            size: (H0, W0) of the picture.
            crop_box: the box of the picture that the model saw.
        """
        return None

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_] | None:
        """Returns whether the outputs of M images still say what is explained, (M,); None where nothing tells.

        Of a class it is whether that comes first.
        """
        return np.isin(outputs.class_scores.argmax(axis=1), self.classes)


@dataclasses.dataclass(frozen=True)
class SettledOutput(SettledTarget):
    """A target that is made of one output.

    Attributes:
        output_name: the name of the output.
    """

    output_name: str = dataclasses.field(kw_only=True)

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The output."""
        return (self.output_name,)

    @property
    def output(self) -> str:
        """The name of the output."""
        return self.output_name


class Target(abc.ABC):
    """What the user wants explained, before any image is seen.

    Class attributes:
        name: the name of the kind.
        syntax: how it is asked for on the command line.
        summary: what it is, in one line.
        gradient: where gradient methods and learned masks take it, in words.
        is_general: whether it takes words that no other kind takes for itself.
    """

    name: ClassVar[str]
    syntax: ClassVar[str]
    summary: ClassVar[str]
    gradient: ClassVar[str]
    is_general: ClassVar[bool] = False

    @classmethod
    def from_words(cls, target: TargetWords, output: str | None) -> Self | None:  # noqa: ARG003
        """Returns the target that a user's words mean; None where they mean a target of another kind.

        Args:
            target: what was given as the target.
            output: the output that was named; None where none was.
        """
        return None

    @property
    @abc.abstractmethod
    def outputs(self) -> tuple[str | None, ...]:
        """The names of the outputs that it needs; None stands for the class output."""

    @property
    def names_outputs(self) -> bool:
        """Whether these names are known before a model's outputs are, see :meth:`fit`."""
        return True

    def refuse_gradient(self, title: str) -> MasktoolError | None:  # noqa: ARG002
        """Returns the error for a method that needs gradients, where no target of the kind has one; else None."""
        return None

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of those outputs of which it takes lists too, that have another length under other masks."""
        return ()

    def fit(self, shapes: Mapping[str, OutputShape], size: Size, metadata: Metadata | None = None) -> Target:  # noqa: ARG002
        """Returns the target as it is of a model, where its outputs follow from those that the model has.

        Args:
            shapes: the shapes of the model's outputs by name; None for an axis of any length.
            size: (height, width) of the model's input in pixels, or what its axes of places are.
            metadata: what the model's file says of itself; None where that is not known.
        """
        return self

    def look_up(self, session: MaskedSession, subject: Subject, inputs: Inputs | None) -> Target:  # noqa: ARG002
        """Returns the target with what has to be known before an image is scored, such as another image's embedding.

        Args:
            session: the session of the model.
            subject: the image.
            inputs: the values of the model's inputs other than the image and the mask, by name.
        """
        return self

    @abc.abstractmethod
    def settle(self, outputs: ModelOutputs) -> SettledTarget:
        """Returns the target by its places in the outputs of one image, with nothing missing.

        Raises:
            TargetError: the model has no such class or value, whatever the image.
            MasktoolError: the image's outputs leave nothing to explain.
        """


TargetWords = str | int | tuple[int | slice, ...] | None
"""A target in words, or numbers. A class: None or ``"top"`` for the class with the highest score; an index, also as a
string of digits; or a label. Where an output is named, one of its values: indices into all axes of the output but the
batch, as numbers or as ``"5,0"``; ``"top"`` for its largest value; a label, of the class output; None where the output
has one value only. The mean of a part of it where one of these is a slice: ``"0,2:5,:"``."""
TargetLike = Target | TargetWords
"""What is to be explained: a target, or the words for one, see :data:`TargetWords`."""

TARGETS: ClassRegistry[Target] = ClassRegistry("kind of target", "masktool.explainers.targets")
"""The class of every kind of target, by its name."""


def explains_classes(title: str, target: SettledTarget) -> MasktoolError:
    """Returns the error for a method that explains classes only, and another target."""
    if target.output is None:
        return MasktoolError(f"{title} explains classes only", where=f"target {target.name}")
    return MasktoolError(
        f"{title} explains classes only", where=f"output {target.output!r}", fix="leave the output out"
    )


def shorten_label(label: str, longest: int = LONGEST_LABEL) -> str:
    """Returns a label, cut so that a title has room for what stands behind it."""
    return label if len(label) <= longest else label[: longest - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def measure(targets: Sequence[SettledTarget], outputs: ModelOutputs) -> NDArray[np.float64]:
    """Returns the numbers (M, T) that targets make of the outputs of M images; each target's lie side by side."""
    return np.stack([target.read(outputs) for target in targets]).T
