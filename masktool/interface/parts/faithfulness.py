"""Options of ``faithfulness``: do explanations say what the model relies on?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.metrics.faithfulness.metric import build_metric
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.faithfulness import Faithfulness, TargetRule
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
    with_options,
)
from masktool.interface.study import Study

MODES = ("layer", "mean")
"""Layer masking, and the fill that is the usual control."""
DEFAULT_METRICS = ("insertion-deletion", "road", "confidence", "sensitivity-n", "infidelity")
"""All but stability, which makes every map once more for each further seed and is measured when it is named."""


@PART_OPTIONS.register("faithfulness")
@dataclasses.dataclass(frozen=True)
class FaithfulnessOptions(PartOptions):
    """Options of the part ``faithfulness``.

    Attributes:
        modes: the masking modes that maps are measured through; empty takes the usual ones, or that of an exported
            model.
        also: exported files that hold the network in further modes.
        explain_with: the masking mode that the maps are made with; None takes the first of ``modes``.
        methods: the names of methods of explanation, or a mapping from each name to its options.
        metrics: the names of the metrics to measure, or a mapping from each name to its options.
        target: the class to explain: ``top``, the class that the model predicts, or ``label``, the image's own class.
        pictures: the number of images whose maps are written as pictures into the directory.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    explain_with: str | None = None
    methods: Sequence[str] | OptionsByName = DEFAULT_METHODS
    metrics: Sequence[str] | OptionsByName = DEFAULT_METRICS
    target: TargetRule = "top"
    pictures: int = PICTURES

    def build(self, study: Study) -> Faithfulness:
        """Returns the part with its models opened."""
        study.require_masks()
        methods = read_methods(self.methods)
        metrics = [build_metric(name, given) for name, given in with_options(self.metrics).items()]
        measuring = study.compare_modes(self.modes, self.also, MODES)
        return Faithfulness(
            explainer=open_explainer(study, measuring, self.explain_with, methods),
            measuring=measuring,
            methods=methods,
            metrics=metrics,
            target=self.target,
            seed=study.seed,
            batch=study.batch,
            overlays=overlays_in(study.directory),
            pictured=study.pictured(self.pictures),
        )


def open_explainer(
    study: Study, measuring: Sequence[NamedModel], name: str | None, methods: Sequence[MethodChoice]
) -> NamedModel:
    """Returns the model that maps are made with.

    It is opened anew, with gradients, a head or a feature map, where a method needs them: in the models that measure,
    gradients would cost time.
    """
    gradient, head, feature_map = need_gradients(methods), need_head(methods), need_feature_map(methods)
    found = next((model for model in measuring if model.name == name), None if name else measuring[0])
    if found is not None:
        metadata = found.session.metadata
        has_head, has_map = head is None or metadata.head is not None, feature_map is None or metadata.feature_maps
        if has_head and has_map and (found.session.has_gradient or not gradient):
            return found
    (opened,) = study.open_models([found.name if found else str(name)], gradient, head, feature_map)
    return opened
