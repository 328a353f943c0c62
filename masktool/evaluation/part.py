"""Parts, the kinds of evaluation: each a question that is measured image by image and summed up over all images.

A part is a frozen dataclass whose fields are its models and options. It lives in a file of its own under ``parts/``,
which is found by looking into that package, so nothing else needs editing to add one. All these files have one form:
the options; ``settings``, which decide the records; ``measure``, which makes one image's record; ``summarise``, which
makes tables, charts and notes of all records; then the functions of both, in this order.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from masktool.errors import MasktoolError
from masktool.evaluation.bootstrap import Interval, as_float, interval_of_mean
from masktool.evaluation.findings import Findings
from masktool.evaluation.maps import MethodChoice, explain_scene, save_overlay
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import Scene
from masktool.explainers.explanation import Explanation
from masktool.explainers.target import TargetLike
from masktool.journal import Record
from masktool.registry import ClassRegistry


class Part(abc.ABC):
    """One kind of evaluation.

    Class attributes:
        name: name on the command line and in files.
        title: title in headings and progress.

    Attributes:
        modes: one network, exported in the masking modes to compare; a part of other models overrides ``models``.
        seed: seed of every random choice and of the resamples.
        batch: number of masks per forward pass; None takes the session's own.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    modes: Sequence[NamedModel]
    seed: int
    batch: int | None

    @property
    def models(self) -> Sequence[NamedModel]:
        """The models that are opened before the first image; images are prepared as the first model's file says."""
        return self.modes

    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""

    @abc.abstractmethod
    def measure(self, scene: Scene) -> Record:
        """Returns the record of one image.

        Raises:
            MasktoolError: the image cannot be measured; the run reports and skips it.
        """

    @abc.abstractmethod
    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings over all records, which are in the order of the images."""

    def mean(self, values: Iterable[float | None]) -> Interval:
        """Returns the mean of a figure over the images with its interval; images with None do not count."""
        return interval_of_mean([as_float(value) for value in values], self.seed)


class MapPart(Part):
    """A part that judges maps of methods of explanation.

    Attributes:
        methods: methods of explanation, with their options.
        overlays: directory for overlays of the maps; None writes none.
        pictured: names of the images that get overlays.
    """

    methods: Sequence[MethodChoice]
    overlays: Path | None
    pictured: Collection[str]

    def explain(
        self, model: NamedModel, scene: Scene, choice: MethodChoice, target: TargetLike, seed: int | None = None
    ) -> Explanation:
        """Returns one method's explanation of one image, and writes the overlay of its map where one is wanted.

        Args:
            model: the model to explain.
            scene: image at the model's input.
            choice: method of explanation with its options.
            target: class to explain.
            seed: seed of the method's random choices; None takes the part's. Maps of other seeds get no overlay.
        """
        explanation = explain_scene(model, scene, choice, target, self.seed if seed is None else seed, self.batch)
        if self.overlays is not None and scene.known.name in self.pictured and seed in (None, self.seed):
            save_overlay(self.overlays, scene, model, explanation)
        return explanation


PARTS: ClassRegistry[Part] = ClassRegistry("evaluation", "masktool.evaluation.parts")
"""The class of every part, by its name."""
register = PARTS.add


def check_distinct(what: str, names: Sequence[str]) -> None:
    """Raises MasktoolError where a name stands twice: the second would replace the first in every record."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MasktoolError(f"the same {what} twice", where=", ".join(twice), fix="name it once")
