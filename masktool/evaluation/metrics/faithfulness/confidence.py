"""Average drop and increase in confidence: the score when only the part that a map highlights is left.

Source: Aditya Chattopadhay, Anirban Sarkar, Prantik Howlader and Vineeth N. Balasubramanian, "Grad-CAM++: Generalized
Gradient-based Visual Explanations for Deep Convolutional Networks", WACV 2018, section 5.1,
https://arxiv.org/abs/1710.11063. With Y the score of the image and O that of what is left of it:

    average drop = mean over images of max(0, Y - O) / Y        increase = share of the images with Y < O

What is left is the image times the map, scaled to [0, 1] (each map by its own minimum and maximum, since only
differences within a map mean anything for every method). Layer and partial masking do not depend on the scale of a soft
mask: there the scaled map is cut at .5, so that these columns hold other masks than those of ``fill``. How much a map
keeps is for the map to choose, and whatever keeps everything drops nothing; so the area is told beside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.faithfulness.metric import Figure, Measured, Metric, register
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.evaluation.metrics.scaling import is_flat, min_max
from masktool.explainers.mask_figures import cut_masks
from masktool.option_checks import check_choice


@register
@dataclasses.dataclass(frozen=True)
class Confidence(Metric):
    """Drop and increase of the score when only what the map highlights is left.

    Attributes:
        binary: whether masks are cut at .5; None cuts them where the model's masking ignores the scale of a soft mask.
    """

    name: ClassVar[str] = "confidence"
    title: ClassVar[str] = "Average drop and increase in confidence"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure(
            "average-drop", "drop of the score when only what the map highlights is left, as a share of it", "lower"
        ),
        Figure("increase", "share of the images whose score rises when only what the map highlights is left", "higher"),
        Figure("area", "share of the image that the map keeps in the two measurements of confidence", None),
    )

    binary: bool | None = None

    def __post_init__(self) -> None:
        check_choice("binary", self.binary, (None, True, False))

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges the maps together; a constant map highlights nothing and is undefined."""
        binary = trial.masking != "fill" if self.binary is None else self.binary
        masks = {name: highlight(each, binary=binary) for name, each in trial.maps.items()}
        defined = {name: mask for name, mask in masks.items() if mask is not None}
        stack = np.stack(list(defined.values()))[:, None] if defined else np.zeros((0, 1, *trial.size), np.float32)
        scores = trial.under_masks(stack[piece] for piece in trial.pieces(len(stack))) if defined else np.zeros(0)
        found = {
            name: self.judge(trial.full, float(score), mask)
            for (name, mask), score in zip(defined.items(), scores, strict=True)
        }
        undefined = Measured(dict.fromkeys(figure.name for figure in self.figures))
        return {name: found.get(name, undefined) for name in trial.maps}

    @staticmethod
    def judge(full: float, left: float, mask: NDArray[np.float32]) -> Measured:
        """Judges one map by the score of the image and of what the map leaves; from a score of 0 nothing can drop."""
        return Measured(
            {
                "average-drop": max(0.0, full - left) / full if full > 0 else None,
                "increase": float(left > full),
                "area": float(mask.mean()),
            }
        )


def highlight(attributions: Map, *, binary: bool) -> NDArray[np.float32] | None:
    """Returns a map scaled to [0, 1], cut at .5 where ``binary``; None for a constant one."""
    if is_flat(attributions):
        return None
    scaled = min_max(attributions)
    return cut_masks(scaled) if binary else scaled.astype(np.float32)
