"""Eigen-CAM: a feature map's places along the first principal component of its channels, whatever the class.

Source: Mohammed Bany Muhammad and Mohammed Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN
2020, section III, https://arxiv.org/abs/2008.00299.

    O = U S V',  O (h w, c) the feature map, one row for each place
    a = O v_1,  v_1 the first column of V,  enlarged bilinearly to the input

The published component is that of O as it is, so that a has the largest sum of squares that any unit vector of channels
gives. ``centred`` takes the mean of each channel from O first, as is usual for principal components, and as
pytorch-grad-cam does: a is then what differs most between places.

A component has no sign of its own. Here the entries of v_1 add up to 0 or more, so that a grows with the activations;
behind a ReLU all of them, and the published map, are 0 or above. The map knows no class, and no score: it shows what
the features have most in common. No gradients are needed, so that quantised files are explained too, in one pass.

``quality`` reports the component's share of the sum of squares.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.feature_maps import choose_activations
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.task import Task
from masktool.option_checks import check_choice

SAME = "the map is the same whatever the class: it shows what the features have most in common"


@register
@dataclasses.dataclass(frozen=True)
class EigenCam(Method):
    """How strongly each place has the features that the feature map has most of.

    Attributes:
        feature_map: the name of the feature map; None takes the one that the file gives, or of several the first.
        centred: whether to take the mean of each channel away first, so that the map shows what differs most.
    """

    name: ClassVar[str] = "eigen-cam"
    title: ClassVar[str] = "Eigen-CAM"
    meaning: ClassVar[str] = "the features' first principal component"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = None
    needs_feature_map: ClassVar[bool] = True
    takes_no_target: ClassVar[bool] = True

    feature_map: str | None = None
    centred: bool = False

    def __post_init__(self) -> None:
        check_choice("centred", self.centred, (True, False))

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the pass of the image as it is."""
        return 1

    def attribute(self, task: Task) -> Attribution:
        """Finds the first principal component of the feature map that came with the scores."""
        name, features = choose_activations(self.title, self.feature_map, task.feature_maps)
        component = first_component(features, centred=self.centred)
        n_targets = len(task.targets)
        return Attribution(
            np.repeat(enlarge(component.values, task.image_size)[None], n_targets, axis=0),
            dataclasses.asdict(self) | {"feature_map": name},
            quality=({"component_share": component.share},) * n_targets,
            notes=((SAME,),) * n_targets,
        )


class Component(NamedTuple):
    """The first principal component of a feature map.

    Attributes:
        values: the places along it, (h, w).
        share: its share of the sum of squares, 0 to 1.
    """

    values: NDArray[np.float32]
    share: float


def first_component(features: NDArray[np.floating[Any]], *, centred: bool) -> Component:
    """Returns the first principal component of a feature map (c, h, w).

    It is found from the products of places with one another, or of channels, whichever are fewer.
    """
    channels, height, width = features.shape
    rows = features.reshape(channels, -1).T.astype(np.float64)
    if centred:
        rows = rows - rows.mean(axis=0)
    by_places = len(rows) <= channels
    products = rows @ rows.T if by_places else rows.T @ rows
    values, vectors = np.linalg.eigh(products)
    largest, total = max(float(values[-1]), 0.0), float(np.trace(products))
    places = np.sqrt(largest) * vectors[:, -1] if by_places else rows @ vectors[:, -1]
    if places @ rows.sum(axis=1) < 0:  # the sum of the weights of the channels, times the largest value
        places = -places
    return Component(places.reshape(height, width).astype(np.float32), largest / total if total > 0 else 0.0)
