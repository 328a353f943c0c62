"""Options of ``compare``: which method explains best for the same number of forward passes?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from masktool.errors import MasktoolError
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.compare import BUDGETS, STABILITY_IMAGES, STEPS, MethodComparison
from masktool.explainers.method import METHODS
from masktool.interface.part_options import (
    PART_OPTIONS,
    OptionsByName,
    PartOptions,
    read_methods,
)
from masktool.interface.parts.faithfulness import open_explainer
from masktool.interface.study import Study
from masktool.option_checks import check_count

MODES = ("layer", "blur")
"""Layer masking, and the best of what needs no change inside the network."""
NEEDS_TRAINING = ("masker",)
"""Methods whose file has to be made for them."""

WITHOUT: tuple[tuple[str, ...], ...] = (
    (),
    ("needs_head",),
    ("needs_gradient",),
    ("needs_gradient", "needs_head"),
    ("needs_gradient", "needs_head", "needs_feature_map"),
)
"""What methods may need that a network may not have, in the order in which they are left out."""


@PART_OPTIONS.register("compare")
@dataclasses.dataclass(frozen=True)
class CompareOptions(PartOptions):
    """Options of the part ``compare``.

    Attributes:
        modes: the masking modes that judge the maps; empty takes the usual ones, or that of an exported model.
        also: exported files that hold the network in further modes.
        explain_with: the masking mode that the maps are made with; None takes the first of ``modes``.
        methods: the names of methods of explanation, or a mapping from each name to its options; empty takes all that
            the network allows.
        budgets: the budgets of forward passes.
        n_steps: the number of steps of insertion and of deletion.
        stability_images: the number of images whose maps are made with a second seed.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    explain_with: str | None = None
    methods: Sequence[str] | OptionsByName = ()
    budgets: Sequence[int] = BUDGETS
    n_steps: int = STEPS
    stability_images: int = STABILITY_IMAGES

    def build(self, study: Study) -> MethodComparison:
        """Returns the part with its models opened."""
        study.require_masks()
        check_count("stability_images", self.stability_images, 0)
        judges = study.compare_modes(self.modes, self.also, MODES)
        choices, explainer = self.open(study, judges)
        return MethodComparison(
            explainer=explainer,
            modes=judges,
            choices=choices,
            budgets=tuple(sorted(set(self.budgets))),
            n_steps=self.n_steps,
            steady=frozenset(image.name for image in study.dataset().images[: self.stability_images]),
            seed=study.seed,
            batch=study.batch,
        )

    def open(self, study: Study, judges: Sequence[NamedModel]) -> tuple[list[MethodChoice], NamedModel]:
        """Returns the methods, and the model that they explain, with the gradients, head or feature map they need.

        Methods that were not named are left out where the network has none of these, which is said.
        """
        asked = read_methods(self.methods or [name for name in METHODS if name not in NEEDS_TRAINING])
        refusal: MasktoolError | None = None
        for without in ((),) if self.methods else WITHOUT:
            chosen = [each for each in asked if not any(getattr(METHODS[each.name], need) for need in without)]
            try:
                opened = open_explainer(study, judges, self.explain_with, chosen)
            except MasktoolError as error:
                refusal = error
                continue
            if refusal is not None:
                study.say(f"without {', '.join(each.name for each in asked if each not in chosen)}: {refusal.message}")
            return chosen, opened
        assert refusal is not None
        raise refusal
