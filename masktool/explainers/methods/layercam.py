"""LayerCAM: every place of a feature map weighed by how much the target's logit grows with it; several maps fused.

Source: Peng-Tao Jiang, Chang-Bin Zhang, Qibin Hou, Ming-Ming Cheng and Yunchao Wei, "LayerCAM: Exploring Hierarchical
Class Activation Maps for Localization", IEEE Transactions on Image Processing 30, 2021, section III,
https://doi.org/10.1109/TIP.2021.3089943.

    L = relu(sum over k of  relu(d f_y / d A_k) A_k),  enlarged bilinearly to the input

A is a feature map that the file holds. Where Grad-CAM weighs a channel as a whole, here each of its places has a weight
of its own, so that maps of early layers mean something too. Their values are small; they are brought out, and maps of
several layers are fused by the maximum:

    l = L / max L,  and tanh(gamma l) for a map with more places than the smallest of them has
    a = max over the maps of  l,  each enlarged to the input

One map alone stays L, in units of the logit. The paper brings out the first three of five stages, with gamma = 2. All
maps come from one backward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.feature_maps import positions_of_maps
from masktool.explainers.gradient_method import ClassMap, GradientMethod
from masktool.explainers.method import register
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.task import Differentiable, Task
from masktool.exported_files import name_feature_maps
from masktool.option_checks import check_real
from masktool.runtime.gradients import FEATURE_MAPS

SMALLEST = float(np.finfo(np.float32).tiny)
"""What stands in for the largest value of a map that is 0 everywhere, which stays so."""


@register
@dataclasses.dataclass(frozen=True)
class LayerCam(GradientMethod):
    """The features in favour of the class, each place with a weight of its own, of one feature map or several.

    Attributes:
        feature_map: the name of the feature map, or a list of names; None takes all that the file holds.
        gamma: how much earlier maps are brought out before several are fused.
    """

    name: ClassVar[str] = "layercam"
    title: ClassVar[str] = "LayerCAM"
    meaning: ClassVar[str] = "features in favour of the class"
    signed: ClassVar[bool] = True

    feature_map: str | Sequence[str] | None = None
    gamma: float = 2.0

    def __post_init__(self) -> None:
        name_feature_maps(self.feature_map)
        check_real("gamma", self.gamma, above=0)

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target from one pass with the gradients with respect to all feature maps."""
        chosen = positions_of_maps(self.title, name_feature_maps(self.feature_map), model.session)
        found = model.gradient(task.prepared.array, task.targets[position], of=(FEATURE_MAPS,))
        maps = [weigh_places(found.feature_maps[each][0], found.gradient_feature_maps[each][0]) for each in chosen]
        return ClassMap(fuse_maps(maps, self.gamma, task.image_size))

    def settings(self, task: Task) -> dict[str, Any]:
        """Returns the options, with the names of the feature maps that were used, as JSON values."""
        assert task.differentiable is not None
        session = task.differentiable.session
        chosen = positions_of_maps(self.title, name_feature_maps(self.feature_map), session)
        return dataclasses.asdict(self) | {"feature_map": [session.metadata.feature_maps[each] for each in chosen]}


def weigh_places(features: NDArray[np.floating[Any]], gradients: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Returns the sum (h, w) of the channels (c, h, w), each place times its gradient where that is above 0; or 0."""
    total = np.einsum("chw,chw->hw", np.maximum(gradients, 0), features, dtype=np.float64)
    return np.maximum(total, 0).astype(np.float32)


def fuse_maps(maps: Sequence[NDArray[np.float32]], gamma: float, size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns one map of ``size`` (height, width): one map enlarged, or the maximum of several that were scaled."""
    if len(maps) == 1:
        return enlarge(maps[0], size)
    fewest = min(each.size for each in maps)
    scaled = [scale_map(each, gamma if each.size > fewest else None) for each in maps]
    fused: NDArray[np.float32] = np.max([enlarge(each, size) for each in scaled], axis=0)
    return fused


def scale_map(values: NDArray[np.float32], gamma: float | None) -> NDArray[np.float32]:
    """Returns a map as shares of its largest value, brought out by ``gamma`` unless that is None."""
    shares = values / np.float32(max(float(values.max()), SMALLEST))
    return shares if gamma is None else np.tanh(np.float32(gamma) * shares)
