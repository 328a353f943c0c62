"""Grad-CAM: a feature map's channels, each weighted by how much the target's logit grows with it.

Source: Ramprasaath R. Selvaraju, Michael Cogswell, Abhishek Das, Ramakrishna Vedantam, Devi Parikh and Dhruv Batra,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1 and 2,
https://arxiv.org/abs/1610.02391.

    w_k = mean over the places of  d f_y / d A_k
    a = relu(sum over k of  w_k A_k),  enlarged bilinearly to the input

A is the feature map that the file holds (the last one, unless it was exported with another). The map sums to no score,
so that no completeness gap is defined.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.gradient_method import ClassMap, GradientMethod
from masktool.explainers.method import register
from masktool.explainers.task import Differentiable, Task
from masktool.messages import call
from masktool.runtime.preprocessing import find_sources, interpolate


@register
@dataclasses.dataclass(frozen=True)
class GradCam(GradientMethod):
    """The features in favour of the class, at each place of the feature map.

    Attributes:
        feature_map: the name of the feature map; None takes the one that the file holds.
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
        self.check_feature_map(model)
        found = model.gradient(task.prepared.array, task.targets[position], of=("feature_map",))
        assert found.feature_map is not None
        assert found.gradient_feature_map is not None
        coarse = weigh_channels(found.feature_map[0], found.gradient_feature_map[0])
        return ClassMap(enlarge(np.maximum(coarse, 0) if self.relu else coarse, task.size))

    def check_feature_map(self, model: Differentiable) -> None:
        """Raises a MasktoolError where the file holds no feature map, or another one than the option names."""
        metadata = model.session.metadata
        if metadata.feature_map is None:
            raise without_feature_map(metadata.copies, model.session.path)
        if self.feature_map not in (None, metadata.feature_map):
            raise MasktoolError(
                "the file holds another feature map",
                where=self.feature_map,
                got=metadata.feature_map,
                fix="export it again: "
                + call("export", metadata.source, ..., gradient="logit", feature_map=self.feature_map),
            )

    def settings(self, task: Task) -> dict[str, Any]:
        """Returns the options, with the name of the feature map that was used, as JSON values."""
        assert task.differentiable is not None
        return dataclasses.asdict(self) | {"feature_map": task.differentiable.session.metadata.feature_map}


def without_feature_map(copies: int, where: object) -> MasktoolError:
    """Returns the error for a network without a feature map.

    Args:
        copies: the number of copies of the one image that fill the network's fixed batch.
        where: the network.
    """
    copied = f"every map is of {copies} copies of the image, which fill its fixed batch"
    return MasktoolError(
        "Grad-CAM needs a feature map (1, c, h, w), and the network has none",
        where=where,
        got=copied if copies > 1 else None,
        fix="occlusion, rise and gradient need none",
    )


def weigh_channels(features: NDArray[np.floating[Any]], gradients: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Returns the sum (h, w) of the channels (c, h, w), each times the mean of its gradient over the places."""
    weights = gradients.mean(axis=(1, 2), dtype=np.float64)
    return np.einsum("c,chw->hw", weights, features).astype(np.float32)


def enlarge(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarges a map (h, w) to ``size`` (height, width), bilinearly between the centres of its places."""
    rows, columns = (find_sources(length, 0, length, source) for length, source in zip(size, values.shape, strict=True))
    enlarged: NDArray[np.float32] = interpolate(interpolate(values, rows).T, columns).T
    return enlarged
