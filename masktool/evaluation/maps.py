"""Maps to judge: those of the methods of explanation, and those that any method must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import Scene
from masktool.explainers.explaining import explain_images
from masktool.explainers.explanation import Explanation
from masktool.explainers.targets import Target
from masktool.files import atomic_path

Map = NDArray[np.float64]
"""(h, w) at the model's input, the larger the more important; never NaN."""
CENTRE, RANDOM, RANDOM_CELLS, ONES, EDGES = "centre", "random", "random-cells", "ones", "edges"
CELLS = 7
"""Of random cells, along each side: as coarse as the maps of most methods."""


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """A method of explanation with its options.

    Attributes:
        name: name of the method.
        options: what differs from the method's defaults.
        n_samples: number of masks, whatever the method's own word for it; None takes its default.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n_samples: int | None = None

    def describe(self) -> dict[str, Any]:
        """Returns the choice as JSON values."""
        return {"name": self.name, "options": dict(self.options), "n_samples": self.n_samples}


def explain_scene(
    model: NamedModel, scene: Scene, choice: MethodChoice, target: Target, seed: int, batch: int | None = None
) -> Explanation:
    """Explains one image with one method, ``batch`` masks at once."""
    (explanation,) = explain_images(
        model.session,
        [scene.image],
        choice.name,
        [target],
        n_samples=choice.n_samples,
        seed=seed,
        perturbations_per_eval=batch,
        **choice.options,
    )
    return explanation


def save_overlay(folder: Path, scene: Scene, model: NamedModel, explanation: Explanation) -> None:
    """Writes ``IMAGE.MODEL.METHOD.png``, for the report's samples."""
    stem = scene.known.name.replace("/", "_")
    with atomic_path(folder / f"{stem}.{model.name}.{explanation.method}.png") as temporary:
        explanation.plot().save(temporary, format="PNG")


def centre_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001 - the signature of all baseline maps
    """Falls off with the distance from the centre, in shares of the sides."""
    height, width = scene.size
    rows, columns = (np.arange(side) + 0.5 for side in (height, width))
    return -np.hypot(rows[:, None] / height - 0.5, columns / width - 0.5)


def random_map(scene: Scene, seed: int) -> Map:
    """Draws every pixel uniformly from [0, 1)."""
    return scene.random(seed).random(scene.size)


def random_cells_map(scene: Scene, seed: int) -> Map:
    """Draws every cell of a coarse grid uniformly from [0, 1).

    It is to methods what random pixels are to single pixels: these leave something of every part of the picture, from
    which a fill can rebuild it.
    """
    rows, columns = (np.arange(side) * CELLS // side for side in scene.size)
    return scene.random(seed).random((CELLS, CELLS))[np.ix_(rows, columns)]


def ones_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001
    """Is 1 everywhere."""
    return np.ones(scene.size)


def edge_map(scene: Scene, seed: int) -> Map:  # noqa: ARG001
    """Is the brightness's slope (Sobel): what a map looks like that knows the image and not the model."""
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
"""By the names that tables show."""
