"""What a method of explanation is: its options, what it needs of the model, what it answers; and all methods by name.

A method is a frozen dataclass whose fields are its options. It lives in a file of its own under ``methods/``, which
is found by looking into that package, so nothing else needs editing to add one.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.task import Task
from masktool.option_checks import build_with_options
from masktool.registry import ClassRegistry


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What a method answers.

    Attributes:
        attributions: (T, h, w) float32 or float64 at the model's input.
        settings: every option with the value that was used, defaults included; JSON values only.
        quality: for each target, figures by which to judge the answer, such as ``attributions_error``.
        segments: (h, w) labels from 0 without gaps, where the method works on segments.
        notes: for each target, what the reader of the map must know, one sentence each; none at all may be left out.
    """

    attributions: NDArray[np.floating[Any]]
    settings: Mapping[str, Any]
    quality: tuple[Mapping[str, float], ...]
    segments: NDArray[np.int32] | None = None
    notes: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A method of explanation; the fields of a subclass are its options.

    Class attributes:
        name: on the command line and in the API.
        title: in pictures and messages.
        meaning: what an attribution is, ``{score}`` standing for probability or score.
        signed: True where 0 separates support from opposition; False where only differences within the map mean
            anything.
        samples_option: the option that ``n_samples`` sets; None where the method draws no samples.
        counts_steps: whether ``samples_option`` counts steps of an integral or a descent instead of random samples.
        capped: whether a few pixels outshine all others, so that the picture's colours end below them.
        needs_gradient: whether the file must hold gradients; the task then has a ``differentiable``.
        outputs: what the method reads of the model besides the scores, in the same pass: names of outputs, each with
            the command that makes a file which has it.
        in_one_batch: whether several images are explained in one batch; otherwise one after the other.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    signed: ClassVar[bool]
    samples_option: ClassVar[str | None]
    counts_steps: ClassVar[bool] = False
    capped: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    outputs: ClassVar[Mapping[str, str]] = {}
    in_one_batch: ClassVar[bool] = False

    @abc.abstractmethod
    def attribute(self, task: Task) -> Attribution:
        """Explains every target of the task with one set of forward passes."""

    def attribute_together(self, tasks: Sequence[Task]) -> list[Attribution]:
        """Explains several images; each as it is explained alone."""
        return [self.attribute(task) for task in tasks]


METHODS: ClassRegistry[Method] = ClassRegistry("method", "masktool.explainers.methods")
"""The class of every method, by its name."""
register = METHODS.add


def build_method(name: str, options: Mapping[str, Any], n_samples: int | None = None) -> Method:
    """Builds a method with the given options.

    Args:
        name: of the method.
        options: by name; what is left out takes its default.
        n_samples: number of masks, whatever the method's own word for it is.

    Raises:
        MasktoolError: unknown method or option, or a value out of range.
    """
    method = METHODS.find(name)
    if n_samples is None:
        return build_with_options(method, method.title, options)
    if method.samples_option is None:
        known = [field.name for field in dataclasses.fields(method)]
        raise MasktoolError(
            f"{method.title} draws no samples",
            where=f"samples={n_samples}",
            fix=f"set {' or '.join(known)} instead" if known else "leave it out: it has no options",
        )
    return build_with_options(method, method.title, {**options, method.samples_option: n_samples})
