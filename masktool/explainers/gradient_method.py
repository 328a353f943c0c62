"""Methods that need gradients: one target after the other, with the gap by which a map fails to add up to the logit."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.method import Attribution, Method
from masktool.explainers.task import Differentiable, Task
from masktool.layouts import TO_CHANNELS_FIRST


class ClassMap(NamedTuple):
    """The explanation of one class: attributions (h, w), figures by which to judge them, and notes for their reader."""

    attributions: NDArray[np.floating[Any]]
    quality: Mapping[str, float] = {}
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class GradientMethod(Method):
    """A method that needs gradients and explains one class at a time."""

    needs_gradient: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None

    def count_passes(self, task: Task) -> int:
        """Returns the passes of the image as it is, and of every class of every target."""
        return 1 + task.gradient_passes * self.passes_per_class

    @property
    def passes_per_class(self) -> int:
        """The number of passes that a class takes."""
        return 1

    def steps_within(self, budget: int, task: Task) -> int:
        """Returns how many passes of a budget there are for each class."""
        return (budget - 1) // task.gradient_passes

    @abc.abstractmethod
    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Explains the class ``task.targets[position]``."""

    def attribute(self, task: Task) -> Attribution:
        """Explains every class of the task."""
        assert task.differentiable is not None  # what asks for gradients gets them
        maps = [self.attribute_class(task, task.differentiable, position) for position in range(len(task.targets))]
        return Attribution(
            np.stack([each.attributions for each in maps]).astype(np.float64),
            self.settings(task),
            quality=tuple(each.quality for each in maps),
            notes=tuple(each.notes for each in maps),
        )

    def settings(self, task: Task) -> dict[str, Any]:  # noqa: ARG002  # a method may name what it chose for the task
        """Returns the options as JSON values."""
        return dataclasses.asdict(self)


def completeness(total: float, attributions: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Returns the sum that attributions should have, and the gap to it, both in units of the target's logit."""
    return {"completeness_total": total, "completeness_gap": total - float(attributions.sum(dtype=np.float64))}


def channels_first(values: NDArray[np.floating[Any]], model: Differentiable) -> NDArray[np.floating[Any]]:
    """Returns images with the axes (N, C, h, w), whatever the model's layout."""
    return values.transpose(TO_CHANNELS_FIRST[model.session.layout])


def largest_channel(values: NDArray[np.floating[Any]], model: Differentiable) -> NDArray[np.floating[Any]]:
    """Returns the largest magnitude among the channels of each pixel, (N, h, w)."""
    return np.abs(channels_first(values, model)).max(axis=1)


def channel_sum(values: NDArray[np.floating[Any]], model: Differentiable) -> NDArray[np.floating[Any]]:
    """Returns the sum over the channels of each pixel, (N, h, w), in double precision, to keep the map's total."""
    return channels_first(values, model).sum(axis=1, dtype=np.float64)
