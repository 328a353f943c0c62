"""Maps to judge: those of the methods of explanation, and baseline maps, which any method must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import Scene
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import build_method
from masktool.explainers.target import TargetLike
from masktool.files import atomic_path

Map = NDArray[np.float64]
"""A map (h, w) at the model's input, the larger the more important; never NaN."""
CENTRE, RANDOM, RANDOM_CELLS, ONES, EDGES = "centre", "random", "random-cells", "ones", "edges"
CELLS = 7
"""Number of random cells along each side: as coarse as the maps of most methods."""


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """A method of explanation with its options.

    Attributes:
        name: name of the method.
        options: options that differ from the method's defaults, by name.
        n_samples: number of masks, whatever the method's own name of that option; None takes its default.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n_samples: int | None = None

    def describe(self) -> dict[str, Any]:
        """Returns the choice as JSON values."""
        return {"name": self.name, "options": dict(self.options), "n_samples": self.n_samples}


def explain_scene(
    model: NamedModel, scene: Scene, choice: MethodChoice, target: TargetLike, seed: int, batch: int | None = None
) -> Explanation:
    """Returns one method's explanation of one image, made with ``batch`` masks at once."""
    method = build_method(choice.name, choice.options, choice.n_samples)
    settings = ExplanationSettings(seed=seed, perturbations_per_eval=batch)
    ((explanation,),) = explain_all(model.session, [scene.image], [[target]], method, settings, model.graphs)
    return explanation


def save_overlay(folder: Path, scene: Scene, model: NamedModel, explanation: Explanation) -> None:
    """Writes an explanation's overlay as ``IMAGE.MODEL.METHOD.png``, for the report's samples."""
    stem = scene.known.name.replace("/", "_")
    with atomic_path(folder / f"{stem}.{model.name}.{explanation.method}.png") as temporary:
        explanation.plot().save(temporary, format="PNG")


def centre_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001 - the signature of all baseline maps
    """Returns a map that falls off with the distance from the centre, in shares of the sides."""
    height, width = scene.size
    rows, columns = (np.arange(side) + 0.5 for side in (height, width))
    return -np.hypot(rows[:, None] / height - 0.5, columns / width - 0.5)


def random_map(scene: Scene, seed: int) -> Map:
    """Returns a map with every pixel drawn uniformly from [0, 1)."""
    return scene.random(seed).random(scene.size)


def random_cells_map(scene: Scene, seed: int) -> Map:
    """Returns a map with every cell of a coarse grid drawn uniformly from [0, 1).

    Random pixels would leave something of every part of the image, from which a fill can rebuild it; cells do not: they
    are as coarse as the maps of most methods.
    """
    rows, columns = (np.arange(side) * CELLS // side for side in scene.size)
    return scene.random(seed).random((CELLS, CELLS))[np.ix_(rows, columns)]


def ones_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001
    """Returns a map that is 1 everywhere."""
    return np.ones(scene.size)


def edge_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001
    """Returns the slope of the brightness (Sobel): a map that knows the image and not the model."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel

    edges: Map = sobel(rgb2gray(scene.pixels))
    return edges


BASELINE_MAPS: Mapping[str, Callable[[Scene, int], Map]] = {
    CENTRE: centre_map,
    RANDOM: random_map,
    RANDOM_CELLS: random_cells_map,
    ONES: ones_map,
    EDGES: edge_map,
}
"""Functions that make the baseline maps, by the names that tables show."""
