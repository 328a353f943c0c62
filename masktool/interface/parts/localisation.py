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
    need_feature_map,
    need_gradients,
    need_head,
    overlays_in,
    read_methods,
)
from masktool.interface.study import Study

MODES = ("layer",)


@PART_OPTIONS.register("localisation")
@dataclasses.dataclass(frozen=True)
class LocalisationOptions(PartOptions):
    """Options of the part ``localisation``.

    Attributes:
        modes: the masking modes to explain with; empty takes ``layer``, or that of an exported model.
        also: exported files that hold the network in further modes.
        methods: the names of methods of explanation, or a mapping from each name to its options.
        correct_only: whether to leave out images whose class the model predicts wrongly.
        pictures: the number of images whose maps are written as pictures into the directory.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    methods: Sequence[str] | OptionsByName = DEFAULT_METHODS
    correct_only: bool = False
    pictures: int = PICTURES

    def build(self, study: Study) -> Localisation:
        """Returns the part with its models opened."""
        methods = read_methods(self.methods)
        return Localisation(
            modes=study.compare_modes(
                self.modes,
                self.also,
                MODES,
                need_gradients(methods),
                everywhere=True,
                head=need_head(methods),
                feature_map=need_feature_map(methods),
            ),
            methods=methods,
            correct_only=self.correct_only,
            seed=study.seed,
            batch=study.batch,
            overlays=overlays_in(study.directory),
            pictured=study.pictured(self.pictures),
        )
