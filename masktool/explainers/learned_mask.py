"""What all methods share that learn a mask: several images in one batch, and figures that say whether it worked.

A soft mask can please a network without hiding anything, so every result says whether the class is still the network's
first choice under the soft mask and under the mask cut at .5, and how large both are.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.baseline_image import baseline_image, check_baseline
from masktool.explainers.hiding import THROUGH, HiddenParts, Through, check_through
from masktool.explainers.learning import Course
from masktool.explainers.mask_design import Masks
from masktool.explainers.mask_figures import CUT, LEAK, areas_of, cut_masks, describe_answer, loses_class
from masktool.explainers.method import Attribution, Method
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import SettledTarget
from masktool.explainers.task import Task
from masktool.option_checks import check_choice, check_count, check_real
from masktool.progress import Advance

FEWEST_STEPS = 50
"""Steps below which no budget goes by itself."""
JUDGING = 3
"""Passes that judge a mask: of the image without it, under it, and under it cut at .5."""


@dataclasses.dataclass(frozen=True)
class Learned:
    """Learned masks (B, 1, h, w), 1 = kept, 0 = missing; attributions (B, h, w); and the course of the learning."""

    masks: Masks
    attributions: NDArray[np.float64]
    course: Course


@dataclasses.dataclass(frozen=True)
class LearnedMask(Method):
    """A method that learns a mask for every image and class.

    Attributes:
        baseline: what takes the place of missing pixels with ``through=fill``: a name or colour, as the ``baseline`` of
            :func:`masktool.export`.
        through: the way in which the mask is applied: ``fill`` blends the image with the baseline; ``layer`` uses the
            file's mask input.
        leak: the value of missing pixels, and 1 minus that of kept ones, in the cut mask that the network sees while a
            mask is learned with ``through=layer``; 0 cuts all of it.
        n_iterations: the largest number of steps.
        tolerance: the share of the lowest loss by which it must improve in 100 steps, or learning stops; 0 makes all
            steps.
        learning_rate: the learning rate of the optimiser at the first step.
        final_rate: the share of the learning rate to which it falls by the last step; 1 keeps it as it is.
    """

    needs_gradient: ClassVar[bool] = True
    in_one_batch: ClassVar[bool] = True
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_iterations"
    counts_steps: ClassVar[bool] = True
    keeps_class: ClassVar[bool] = True
    """Whether the mask is meant to keep the class, rather than to destroy it."""

    baseline: str = "mean"
    through: Through = "fill"
    leak: float = LEAK
    n_iterations: int = 180
    tolerance: float = 0.01
    learning_rate: float = 0.5
    final_rate: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", check_baseline("baseline", self.baseline))  # a number becomes its text
        check_choice("through", self.through, THROUGH)
        if self.leak != 0:
            check_real("leak", self.leak, above=0, below=CUT)
        check_count("n_iterations", self.n_iterations)
        if self.tolerance != 0:
            check_real("tolerance", self.tolerance, above=0, below=1)
        check_real("learning_rate", self.learning_rate, above=0)
        if self.final_rate != 1:
            check_real("final_rate", self.final_rate, above=0, below=1)

    @abc.abstractmethod
    def learn(self, hidden: HiddenParts, seeds: Sequence[int], advance: Advance) -> Learned:
        """Learns one mask for every image of ``hidden``, each from a start that the seed of the image decides."""

    @abc.abstractmethod
    def settings(self, size: tuple[int, int]) -> dict[str, Any]:
        """Returns every option with the value that an input of ``size`` (height, width) takes, as JSON values."""

    @property
    def passes_per_step(self) -> int:
        """The number of passes of each step."""
        return 1

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with as many steps as fit, up to those that it has anyway.

        Fewer than :data:`FEWEST_STEPS` are not chosen, since a mask that has hardly begun to form shows nothing.
        """
        room = (budget - 1 - JUDGING * len(task.targets)) // (task.gradient_passes * self.passes_per_step)
        fewest = min(FEWEST_STEPS, self.n_iterations)
        return dataclasses.replace(self, n_iterations=min(self.n_iterations, max(fewest, room)))

    def count_passes(self, task: Task) -> int:
        """Returns the passes of the image as it is, of all steps, and those that judge the mask."""
        steps = self.n_iterations * self.passes_per_step
        return 1 + task.gradient_passes * steps + len(task.targets) * JUDGING

    def attribute(self, task: Task) -> Attribution:
        """Learns one mask for every target of one image."""
        return self.attribute_together([task])[0]

    def attribute_together(self, tasks: Sequence[Task]) -> list[Attribution]:
        """Learns the masks of several images in one batch.

        Args:
            tasks: one task per image, all with the same model and the same input size.

        Raises:
            MasktoolError: a loss or gradient is not finite, or the file cannot mask as the options say.
        """
        hidden = self.hide(tasks)
        seeds = [task.seed for task in tasks for _ in task.targets]
        with hidden.model.counting(self.n_iterations) as advance:
            learned = self.learn(hidden, seeds, advance)
        figures, notes = self.judge(hidden, learned)
        found, start = [], 0
        for task in tasks:
            part = slice(start, start := start + len(task.targets))
            found.append(
                Attribution(
                    learned.attributions[part],
                    self.settings(task.image_size),
                    quality=tuple(figures[part]),
                    notes=tuple(notes[part]),
                )
            )
        return found

    def hide(self, tasks: Sequence[Task]) -> HiddenParts:
        """Returns the images of all tasks as one batch, each image once for every class to explain."""
        models = [task.differentiable for task in tasks if task.differentiable is not None]
        check_through(self.through, models[0].session.metadata.masking)
        copies = [len(task.targets) for task in tasks]
        images = np.concatenate([task.prepared.array for task in tasks]).repeat(copies, axis=0)
        fill = None
        if self.through == "fill":
            baselines = [baseline_image(task, models[0], self.baseline) for task in tasks]
            fill = np.concatenate(baselines).repeat(copies, axis=0)
        return HiddenParts(
            model=models[0],
            images=images,
            targets=[target for task in tasks for target in task.targets],
            fill=fill,
            batch=tasks[0].perturbations_per_eval,
            leak=self.leak,
        )

    def judge(self, hidden: HiddenParts, learned: Learned) -> tuple[list[dict[str, float]], list[tuple[str, ...]]]:
        """Returns figures and notes for every mask: the score without and under the mask, its area and its course."""
        cut = cut_masks(learned.masks)
        asked = {"": hidden.predict(), "_soft": hidden.predict(learned.masks), "_cut": hidden.predict(cut)}
        figures, notes = [], []
        for position, target in enumerate(hidden.targets):
            answers = {name: hidden.outputs_of(found, position) for name, found in asked.items()}
            figure: dict[str, float] = {}
            for name, answer in answers.items():
                scores = answer.class_scores[0] if hidden.has_classes else None
                figure |= describe_answer(scores, float(target.read(answer)[0]), name)
            figure |= {
                **tell_what_holds(target, answers),
                **areas_of(learned.masks[position]),
                "loss_first": float(learned.course.first[position]),
                "loss_last": float(learned.course.last[position]),
                "iterations": int(learned.course.iterations[position]),
                "settled": bool(learned.course.settled[position]),
            }
            figures.append(figure)
            notes.append(self.warn(figure, target))
        return figures, notes

    def warn(self, figure: dict[str, float], target: SettledTarget) -> tuple[str, ...]:
        """Returns notes that the reader of a mask must know, from its figures and the target."""
        if not self.keeps_class or figure.get("kept_cut", True):
            return ()
        return (loses_class(figure, target.name if len(target.classes) != 1 else None),)


def tell_what_holds(target: SettledTarget, answers: Mapping[str, ModelOutputs]) -> dict[str, float]:
    """Returns whether the outputs under each mask still say what is explained; nothing where nothing tells.

    Args:
        target: the target.
        answers: the outputs by what stands behind the figure's name; that of the whole image has no such figure.
    """
    found = {name: target.holds(answer) for name, answer in answers.items() if name}
    return {f"kept{name}": bool(held[0]) for name, held in found.items() if held is not None}
