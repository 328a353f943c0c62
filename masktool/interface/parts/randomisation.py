"""Options of ``randomisation``: do explanations change when weights are randomised?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masktool.errors import MasktoolError
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.randomisation import Randomisation, RandomisedCopy
from masktool.explainers.method import METHODS
from masktool.files import temporary_directory
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
from masktool.option_checks import check_choice, check_count

if TYPE_CHECKING:
    from masktool.exporters.randomise import Order

STAGES = 8


@PART_OPTIONS.register("randomisation")
@dataclasses.dataclass(frozen=True)
class RandomisationOptions(PartOptions):
    """Options of the part ``randomisation``.

    Attributes:
        mode: the masking mode; None takes that of an exported model, else ``layer``.
        methods: the names of methods of explanation, or a mapping from each name to its options.
        order: the order of randomisation: ``cascading``, from the last layer to the first, each stage adding to the one
            before, or ``independent``, one layer at a time.
        stages: the number of stages to explain at, evenly spread over the network's layers.
        pictures: the number of images whose maps are written as pictures into the directory.
    """

    mode: str | None = None
    methods: Sequence[str] | OptionsByName = DEFAULT_METHODS
    order: Order = "cascading"
    stages: int = STAGES
    pictures: int = PICTURES

    def __post_init__(self) -> None:
        from masktool.exporters.randomise import ORDERS

        super().__post_init__()
        check_choice("order", self.order, ORDERS)
        check_count("stages", self.stages)

    def build(self, study: Study) -> Randomisation:
        """Returns the part with its model opened; randomised copies go into a temporary directory of the study."""
        study.require_masks()
        methods = read_methods(self.methods)
        if need_head(methods) is not None:
            raise MasktoolError(
                "randomised copies have no head: weights are randomised in one file, and a head is another",
                where=", ".join(each.name for each in methods if METHODS[each.name].needs_head),
                fix="leave that out",
            )
        modes = None if self.mode is None else [self.mode]
        (original,) = study.open_models(modes, need_gradients(methods), feature_map=need_feature_map(methods))
        return Randomisation(
            original=original,
            stages=self.write_stages(original, study),
            methods=methods,
            seed=study.seed,
            batch=study.batch,
            overlays=overlays_in(study.directory),
            pictured=study.pictured(self.pictures),
        )

    def write_stages(self, original: NamedModel, study: Study) -> list[RandomisedCopy]:
        """Writes a randomised copy of a model for every stage, and returns the copies."""
        from masktool.exporters.randomise import choose_layers, find_layers, read_exported, write_copies

        session = original.session
        layers = find_layers(read_exported(session.path)[0])
        study.say(f"{len(layers)} layers with weights, from {layers[0].name} to {layers[-1].name}")
        stages = choose_layers(layers, self.order, self.stages)
        copies = write_copies(session.path, study.stack.enter_context(temporary_directory()), stages, study.seed)
        return [RandomisedCopy.at(path, names, session) for path, names in zip(copies, stages, strict=True)]
