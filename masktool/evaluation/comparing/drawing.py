"""The maps of all contenders on one image, from passes that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from masktool.errors import MasktoolError
from masktool.evaluation.comparing.contenders import Contender, LeftOut, find_contenders
from masktool.evaluation.comparing.shared_scores import SharedScores, Times
from masktool.evaluation.maps import Map, MethodChoice
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import Scene
from masktool.explainers.explaining import make_task, outputs_beside
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import METHODS, Method
from masktool.explainers.reading import Reading, check_finite, read_scores
from masktool.explainers.stopping import Stopping
from masktool.explainers.targets.class_target import ClassTarget
from masktool.explainers.task import Task


class DrawnMap(NamedTuple):
    """A contender's map.

    Attributes:
        attributions: map (h, w) at the model's input.
        signed: whether 0 separates support from opposition.
        passes: number of passes that the map takes alone, that of the image as it is among them.
        times: time that it takes, with its passes, wherever these were run.
    """

    attributions: Map
    signed: bool
    passes: int
    times: Times


class SceneDrawing:
    """Draws the maps of contenders on one image; the image as it is, and equal masks, are scored once for all.

    Args:
        model: model to explain.
        scene: the image.
        choices: methods to draw.
        seed: seed of every random choice.
        batch: number of masks per forward pass; None takes the session's own.
    """

    def __init__(
        self, model: NamedModel, scene: Scene, choices: Sequence[MethodChoice], seed: int, batch: int | None
    ) -> None:
        self.model, self.scene, self.choices = model, scene, choices
        self.settings = ExplanationSettings(seed=seed, perturbations_per_eval=batch)
        started = Times.now()
        self.reading = self.read()
        self.reading_times = Times.now().less(started)
        self._shared: SharedScores | None = None

    def read(self) -> Reading:
        """Scores the image as it is, with all outputs that the methods read."""
        session, kinds = self.model.session, [METHODS[each.name] for each in self.choices]
        outputs = dict.fromkeys(name for kind in kinds for name in outputs_beside(session, kind))
        return read_scores(session, self.scene.subject, [ClassTarget()], None, list(outputs))

    @property
    def scores(self) -> np.ndarray:
        """The scores (K,) of the image as it is."""
        return check_finite(self.reading.class_scores)

    def task(self, method: Method, budget: int) -> Task:
        """Returns the task of a method within a budget: the class with the highest score."""
        settings = dataclasses.replace(self.settings, stopping=Stopping(budget=budget))
        made = make_task(method, self.scene.subject, self.reading, [ClassTarget()], settings)
        if self._shared is None:
            self._shared = SharedScores(made.evaluate)
        return dataclasses.replace(made, evaluate=self._shared)

    def contenders(self, choice: MethodChoice, budgets: Sequence[int]) -> list[Contender | LeftOut]:
        """Returns one method at every budget at which it has settings of its own, the largest budget first.

        The passes of the others are among its passes, where its design goes on behind the same rows.
        """
        return list(find_contenders(choice, budgets, self.task))[::-1]

    def draw(self, contender: Contender) -> DrawnMap:
        """Returns a contender's map."""
        shared = self._shared
        assert shared is not None  # a task was made
        asked, run, charged, spent = shared.asked, shared.run, shared.charged, shared.spent
        started = Times.now()
        with self.model.session.counter.tally() as tally:
            attribution = contender.method.attribute(contender.task)
        took = Times.now().less(started)
        own = took.less(shared.spent.less(spent))
        others = tally.passes - (shared.run - run)
        return DrawnMap(
            check_finite(attribution.attributions[0]).astype(np.float64),
            contender.method.signed,
            1 + (shared.asked - asked) + others,
            self.reading_times.plus(own).plus(shared.charged.less(charged)),
        )

    def draw_all(self, budgets: Sequence[int]) -> Iterator[tuple[Contender, DrawnMap] | LeftOut]:
        """Yields every contender with its map, and at which budgets there is none: no method stops the others."""
        for choice in self.choices:
            for each in self.contenders(choice, budgets):
                if isinstance(each, LeftOut):
                    yield each
                    continue
                try:
                    yield each, self.draw(each)
                except MasktoolError as error:
                    yield LeftOut(choice.name, each.budget, error.message)
