"""Methods of explanation: their options, what they need of the model, what they return; and all methods by name.

A method is a frozen dataclass whose fields are its options. It lives in a file of its own under ``methods/``, which
is found by looking into that package, so nothing else needs editing to add one.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.stopping import Stopping
from masktool.explainers.task import Task
from masktool.messages import parameter
from masktool.option_checks import build_with_options
from masktool.registry import ClassRegistry


@dataclasses.dataclass(frozen=True)
class Attribution:
    """The answer of a method: one map per target, and figures and notes by which to judge it.

    Attributes:
        attributions: one map per target, (T, h, w) or (T, ...) float32 or float64 in the pixels of the model's input.
        settings: every option with the value that was used, defaults included; JSON values only.
        quality: figures by which to judge the map of each target, such as ``attributions_error``.
        segments: the segments, (h, w) int32 labels from 0 without gaps; None where the method works on none.
        notes: what the reader of each target's map must know, one sentence each; empty where there are no notes at all.
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
        name: the method's name on the command line and in the API.
        title: the method's name in pictures and messages.
        meaning: what an attribution is, in words; ``{score}`` stands for the word for a score, such as probability, and
            ``{logit}`` for that of what gradients are of.
        signed: whether the sign of an attribution separates support from opposition; otherwise only differences within
            the map mean anything.
        samples_option: the name of the option that ``n_samples`` sets; None where the method draws no samples.
        most_samples: the largest number of samples where the user leaves ``samples_option`` open, which is None then;
            None where that option is always a number.
        counts_steps: whether ``samples_option`` counts steps of an integral or a descent instead of random samples.
        capped: whether the picture's colours end below the largest values, which a few pixels hold.
        needs_gradient: whether the file must hold gradients; the task then has a ``differentiable``.
        takes_no_target: whether there is one map, whichever class is named.
        needs_head: whether the file must have a head, the layers behind a feature map; the task then has a ``head``.
        needs_feature_map: whether the method reads activations without gradients, so that the file must give a feature
            map; the task then has ``feature_maps``.
        outputs: the names of the outputs that the method reads besides the scores, in the same pass, each with the
            command that makes a file with that output.
        in_one_batch: whether several images are explained in one batch; otherwise one after the other.
        any_rank: whether the method explains signals and volumes too; otherwise images alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    signed: ClassVar[bool]
    samples_option: ClassVar[str | None]
    most_samples: ClassVar[int | None] = None
    counts_steps: ClassVar[bool] = False
    capped: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    takes_no_target: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    needs_feature_map: ClassVar[bool] = False
    outputs: ClassVar[Mapping[str, str]] = {}
    in_one_batch: ClassVar[bool] = False
    any_rank: ClassVar[bool] = False

    @classmethod
    def reads_class_scores(cls) -> bool:
        """Tells whether the map is made of what leads to class scores, or was trained with them."""
        return cls.needs_head or cls.needs_feature_map or bool(cls.outputs)

    @classmethod
    def draws(cls) -> bool:
        """Tells whether the method draws random samples, and may stop early."""
        return cls.samples_option is not None and not cls.counts_steps

    @property
    def sample_limit(self) -> int:
        """The number of samples that the user asks for, else the method's largest."""
        assert self.samples_option is not None
        count: int | None = getattr(self, self.samples_option)
        limit = self.most_samples if count is None else count
        assert limit is not None
        return limit

    def most_within(self, stopping: Stopping) -> int:
        """Returns the number of samples that the user asks for, else all that a budget allows, else the largest."""
        assert self.samples_option is not None
        is_open = getattr(self, self.samples_option) is None
        return stopping.budget - 1 if is_open and stopping.budget is not None else self.sample_limit

    def leaves_open(self, name: str) -> bool:
        """Tells whether an option has its default, so that a budget may choose it."""
        (field,) = (each for each in dataclasses.fields(self) if each.name == name)
        value = getattr(self, name)
        return value is field.default or (not isinstance(value, np.ndarray) and bool(value == field.default))

    def within(self, budget: int, task: Task) -> Self:  # noqa: ARG002  # what has a fixed cost has nothing to choose
        """Returns the method with the settings that make the most of a budget of passes; options with values stay.

        Numbers of steps beyond the budget are cut; for samples :class:`~masktool.explainers.stopping.SampleRun` does
        that. What cannot be brought within the budget is left, and refused by its :meth:`count_passes`.

        Args:
            budget: the largest number of forward passes, that of the image as it is among them.
            task: the task, whose size, targets and feature map decide the cost.
        """
        return self

    def count_passes(self, task: Task) -> int | None:  # noqa: ARG002
        """Returns how many passes a task takes, that of the image as it is among them; None where that is not known.

        Of a method that draws samples it is the fewest that it can do with. One that does not say takes no budget.
        """
        return None

    @abc.abstractmethod
    def attribute(self, task: Task) -> Attribution:
        """Explains every target of the task with one set of forward passes."""

    def cut(self, task: Task) -> NDArray[np.int32] | None:  # noqa: ARG002  # most methods work on pixels
        """Returns the segments of the model's input, (h, w) labels from 0; None where the method works on none."""
        return None

    def attribute_together(self, tasks: Sequence[Task]) -> list[Attribution]:
        """Explains several images, each with the result that it would have alone."""
        return [self.attribute(task) for task in tasks]


METHODS: ClassRegistry[Method] = ClassRegistry("method", "masktool.explainers.methods")
"""The class of every method, by its name."""
register = METHODS.add


def build_method(name: str, options: Mapping[str, Any], n_samples: int | None = None) -> Method:
    """Builds a method with the given options.

    Args:
        name: the name of the method.
        options: the method's options by name; an option that is left out takes its default.
        n_samples: the value of the option that the method names in ``samples_option``; None leaves it to ``options``.

    Raises:
        MasktoolError: the method or an option is unknown, or a value is out of range.
    """
    method = METHODS.find(name)
    if n_samples is None:
        return build_with_options(method, method.title, options)
    if method.samples_option is None:
        known = [field.name for field in dataclasses.fields(method)]
        raise MasktoolError(
            f"{method.title} draws no samples",
            where=parameter("n_samples", n_samples),
            fix=f"set {' or '.join(known)} instead" if known else "leave it out: it has no options",
        )
    return build_with_options(method, method.title, {**options, method.samples_option: n_samples})
