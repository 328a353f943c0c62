"""Grad-CAM: a feature map's channels, each weighted by how much the target's logit grows with it.

Source: Ramprasaath R. Selvaraju, Michael Cogswell, Abhishek Das, Ramakrishna Vedantam, Devi Parikh and Dhruv Batra,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1 and 2,
https://arxiv.org/abs/1610.02391.

    w_k = mean over the places of  d f_y / d A_k
    a = relu(sum over k of  w_k A_k),  enlarged bilinearly to the input

A is the feature map that the file holds (the last one, unless it was exported with another), or of several the first.
The map sums to no score, so that no completeness gap is defined.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.feature_maps import positions_of_maps
from masktool.explainers.gradient_method import ClassMap, GradientMethod
from masktool.explainers.method import register
from masktool.explainers.task import Differentiable, Task
from masktool.runtime.gradients import FEATURE_MAPS
from masktool.runtime.preprocessing import find_sources, interpolate
from masktool.runtime.session import MaskedSession


@register
@dataclasses.dataclass(frozen=True)
class GradCam(GradientMethod):
    """The features in favour of the class, at each place of the feature map.

    Attributes:
        feature_map: the name of the feature map; None takes the one that the file holds, or of several the first.
        relu: whether to set what speaks against the class to 0, as published.
    """

    name: ClassVar[str] = "grad-cam"
    title: ClassVar[str] = "Grad-CAM"
    meaning: ClassVar[str] = "features in favour of the class"
    signed: ClassVar[bool] = True

    feature_map: str | None = None
    relu: bool = True

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target from one pass with the gradient with respect to the feature map."""
        chosen = self.choose_map(model.session)
        found = model.gradient(task.prepared.array, task.targets[position], of=(FEATURE_MAPS,))
        coarse = weigh_channels(found.feature_maps[chosen][0], found.gradient_feature_maps[chosen][0])
        return ClassMap(enlarge(np.maximum(coarse, 0) if self.relu else coarse, task.image_size))

    def choose_map(self, session: MaskedSession) -> int:
        """Returns where the feature map stands among those of the file."""
        return positions_of_maps(self.title, () if self.feature_map is None else (self.feature_map,), session)[0]

    def settings(self, task: Task) -> dict[str, Any]:
        """Returns the options, with the name of the feature map that was used, as JSON values."""
        assert task.differentiable is not None
        session = task.differentiable.session
        return dataclasses.asdict(self) | {"feature_map": session.metadata.feature_maps[self.choose_map(session)]}


def weigh_channels(features: NDArray[np.floating[Any]], gradients: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Returns the sum (h, w) of the channels (c, h, w), each times the mean of its gradient over the places."""
    weights = gradients.mean(axis=(1, 2), dtype=np.float64)
    return np.einsum("c,chw->hw", weights, features).astype(np.float32)


def enlarge(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarges a map (h, w) to ``size`` (height, width), bilinearly between the centres of its places."""
    rows, columns = (find_sources(length, 0, length, source) for length, source in zip(size, values.shape, strict=True))
    enlarged: NDArray[np.float32] = interpolate(interpolate(values, rows).T, columns).T
    return enlarged
