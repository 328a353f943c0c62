"""Input times gradient: each pixel's share of the target's logit, if the network were linear.

Source: Avanti Shrikumar, Peyton Greenside, Anna Shcherbina and Anshul Kundaje, "Not Just a Black Box: Learning
Important Features Through Propagating Activation Differences", 2016, section 2, https://arxiv.org/abs/1605.01713.

    a(x) = sum over the channels c of  x_c  d f_y / d x_c

x is the model's normalised input, so that a pixel of the data set's mean colour gets 0. In a network without
biases that is piecewise linear the map sums to the logit f_y exactly (Euler's theorem); ``quality`` reports the gap.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from masktool.explainers.gradient_method import ClassMap, GradientMethod, channel_sum, completeness
from masktool.explainers.method import register
from masktool.explainers.task import Differentiable, Task


@register
@dataclasses.dataclass(frozen=True)
class InputXGradient(GradientMethod):
    """Gradient times the model's input, the channels added up."""

    name: ClassVar[str] = "input-x-gradient"
    title: ClassVar[str] = "Input x gradient"
    meaning: ClassVar[str] = "linear share of the {logit}"
    signed: ClassVar[bool] = True
    capped: ClassVar[bool] = True
    any_rank: ClassVar[bool] = True

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target from one gradient."""
        image = task.prepared.array
        found = model.gradient(image, task.targets[position])
        assert found.image is not None
        attributions = channel_sum(image * found.image, model)[0]
        return ClassMap(attributions, completeness(float(found.objective[0]), attributions))
