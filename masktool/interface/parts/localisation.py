"""Options of ``localisation``: do explanations find the objects?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from masktool.evaluation.parts.localisation import Localisation
from masktool.interface.part_options import (
    DEFAULT_METHODS,
    PART_OPTIONS,
    PICTURES,
    OptionsByName,
    PartOptions,
    need_gradients,
    overlays_in,
    read_methods,
)
from masktool.interface.study import Study

MODES = ("layer",)


@PART_OPTIONS.register("localisation")
@dataclasses.dataclass(frozen=True)
class LocalisationOptions(PartOptions):
    """Options of the part.

    Attributes:
        modes: masking modes to explain with; without any, ``layer``, or that of an exported model.
        also: files that hold the network in further modes.
        methods: of explanation, perhaps with the options of each.
        correct_only: leave out images that the model gets wrong.
        pictures: how many images get pictures of their maps, in the directory.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    methods: Sequence[str] | OptionsByName = DEFAULT_METHODS
    correct_only: bool = False
    pictures: int = PICTURES

    def build(self, study: Study) -> Localisation:
        """Returns the part, its models opened."""
        methods = read_methods(self.methods)
        return Localisation(
            modes=study.compare_modes(self.modes, self.also, MODES, need_gradients(methods), everywhere=True),
            methods=methods,
            correct_only=self.correct_only,
            seed=study.seed,
            batch=study.batch,
            overlays=overlays_in(study.directory),
            pictured=study.pictured(self.pictures),
        )
