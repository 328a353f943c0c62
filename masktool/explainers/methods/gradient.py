"""Gradient: how much the target's logit changes when a pixel changes by a little.

Source: Karen Simonyan, Andrea Vedaldi and Andrew Zisserman, "Deep Inside Convolutional Networks: Visualising Image
Classification Models and Saliency Maps", ICLR workshop 2014, section 3, https://arxiv.org/abs/1312.6034.

    a(x) = max over the channels c of  |d f_y / d x_c|

f_y is the target's logit and x the model's input, normalised. The gradient says what the network is sensitive to, not
what it relied on; it sums to nothing, so that no completeness gap is defined.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from masktool.explainers.gradient_method import ClassMap, GradientMethod, largest_channel
from masktool.explainers.method import register
from masktool.explainers.task import Differentiable, Task


@register
@dataclasses.dataclass(frozen=True)
class GradientMagnitude(GradientMethod):
    """Largest magnitude of the gradient among the channels of a pixel."""

    name: ClassVar[str] = "gradient"
    title: ClassVar[str] = "Gradient"
    meaning: ClassVar[str] = "change in {logit} per unit of input, largest channel"
    signed: ClassVar[bool] = False
    capped: ClassVar[bool] = True
    any_rank: ClassVar[bool] = True

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target from one gradient."""
        found = model.gradient(task.prepared.array, task.targets[position])
        assert found.image is not None
        return ClassMap(largest_channel(found.image, model)[0])
