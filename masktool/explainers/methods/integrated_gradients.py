"""Integrated gradients: the gradient summed up on the straight way from a baseline to the image.

Source: Mukund Sundararajan, Ankur Taly and Qiqi Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1,
https://arxiv.org/abs/1703.01365.

    a(x) = sum over the channels c of  (x_c - b_c)  integral over t from 0 to 1 of  d f_y / d x_c (b + t (x - b)) dt

The map sums to f_y(x) - f_y(b), but for the error of the integral, which ``quality`` reports as the completeness gap.
The integral is a sum over n steps: at Gauss-Legendre's points and weights, or at the middle of n equal pieces
(Riemann's sum). The default baseline is the data set's mean colour, which is 0 in the model's input.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.baseline_image import baseline_image, check_baseline
from masktool.explainers.gauss_legendre import gauss_legendre
from masktool.explainers.gradient_method import ClassMap, GradientMethod, channel_sum, completeness
from masktool.explainers.method import register
from masktool.explainers.task import Differentiable, Task
from masktool.option_checks import check_choice, check_count

Rule = Literal["gauss-legendre", "riemann"]
ENDS = 2
"""Passes beside the steps: the image and the baseline, for the completeness gap."""
NOTICEABLE = 0.05
"""Share of the change in logit from which the gap is worth a note: the paper's own bound (section 5)."""


@register
@dataclasses.dataclass(frozen=True)
class IntegratedGradients(GradientMethod):
    """Share of each pixel in the change of the logit from the baseline to the image.

    Attributes:
        baseline: the baseline in pixels: ``mean`` (of the data set), ``black``, ``grey``, ``image-mean``, ``blur``,
            ``noise``, a number or ``R,G,B`` in 0..255.
        n_steps: the number of gradients.
        rule: the rule of the integral: ``gauss-legendre`` or ``riemann`` (the middle of equal pieces).
    """

    name: ClassVar[str] = "integrated-gradients"
    title: ClassVar[str] = "Integrated gradients"
    meaning: ClassVar[str] = "share of the change in {logit} from the baseline"
    signed: ClassVar[bool] = True
    capped: ClassVar[bool] = True
    any_rank: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = "n_steps"
    counts_steps: ClassVar[bool] = True

    baseline: str = "mean"
    n_steps: int = 50
    rule: Rule = "gauss-legendre"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", check_baseline("baseline", self.baseline))  # a number becomes its text
        check_count("n_steps", self.n_steps)
        check_choice("rule", self.rule, ("gauss-legendre", "riemann"))

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with as many steps as fit, up to those that it has anyway: more change next to nothing."""
        steps = max(1, self.steps_within(budget, task) - ENDS)
        return dataclasses.replace(self, n_steps=min(self.n_steps, steps))

    @property
    def passes_per_class(self) -> int:
        """The number of steps, and both ends of the way."""
        return self.n_steps + ENDS

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target, with the gap between its sum and the logit's change from baseline to image."""
        image, target = task.prepared.array, task.targets[position]
        baseline = baseline_image(task, model, self.baseline)
        places, weights = step_rule(self.rule, self.n_steps)
        add_up = model.open_line(image, baseline, target)
        total = np.zeros(image.shape)
        with model.counting(self.n_steps) as advance:
            for piece in task.batch_ranges(self.n_steps):
                chosen = slice(piece.start, piece.stop)
                total += add_up(places[chosen], weights[chosen])
                advance(len(piece))
        ends = model.gradient(np.concatenate([image, baseline]), target, of=()).objective
        attributions = channel_sum(total * (image - baseline), model)[0]
        quality = completeness(float(ends[0]) - float(ends[1]), attributions)
        return ClassMap(attributions, quality, self.notes(quality))

    def notes(self, quality: dict[str, float]) -> tuple[str, ...]:
        """Returns a note where the completeness gap is large, with what to do about it."""
        gap, total = abs(quality["completeness_gap"]), abs(quality["completeness_total"])
        if gap <= NOTICEABLE * total:
            return ()
        return (f"the integral is off by {gap:.3g} of {total:.3g}: raise n_steps (now {self.n_steps})",)


def step_rule(rule: Rule, n_steps: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Returns the places of an integral's steps in (0, 1), and their weights of sum 1, (n_steps,) each."""
    if rule == "riemann":
        return ((np.arange(n_steps) + 0.5) / n_steps).astype(np.float32), np.full(n_steps, 1 / n_steps)
    places, weights = gauss_legendre(n_steps)
    return ((places + 1) / 2).astype(np.float32), weights / 2
