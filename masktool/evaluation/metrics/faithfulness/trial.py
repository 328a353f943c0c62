"""Trials: all that a metric may ask about, namely one image, its maps and the model that measures them."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout, Masking
from masktool.evaluation.maps import Map
from masktool.explainers.mask_design import Masks
from masktool.explainers.reading import check_finite
from masktool.layouts import SPATIAL_AXES

Answer = Callable[[NDArray[np.float32], Masks | None], NDArray[np.floating[Any]]]
"""A function from images (N, ...) as the model takes them, and masks (M, 1, h, w) or None, to probabilities
(max(N, M), K)."""
SCORE_ROUNDING = 1e-6
"""Change of a probability that counts as rounding: a few units in the last place of float32 around 1."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One image, its maps and one model: all that a metric may ask about. Scores are probabilities of the target.

    Attributes:
        name: name of the image, on which random numbers depend.
        image: image (1, C, h, w) or (1, h, w, C) float32, as the model takes it.
        layout: order of the image's axes.
        maps: maps (h, w), the larger the more important, by the names that tables show.
        redraw: function of a map's name and another seed that makes the map again.
        target: index of the class that the maps explain.
        answer: function that runs the model.
        masking: masking mode of the model.
        batch: number of images in one pass.
        seed: seed of every random choice.
    """

    name: str
    image: NDArray[np.float32]
    layout: Layout
    maps: Mapping[str, Map]
    redraw: Callable[[str, int], Map]
    target: int
    answer: Answer
    masking: Masking
    batch: int
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = SPATIAL_AXES[self.layout]
        return self.image.shape[height], self.image.shape[width]

    @functools.cached_property
    def full(self) -> float:
        """The score of the image with nothing missing."""
        return float(check_finite(self.answer(self.image, None))[0, self.target])

    def random(self, purpose: str) -> np.random.Generator:
        """Returns random numbers for one purpose, independent of those for any other purpose."""
        return np.random.default_rng([self.seed, *(zlib.crc32(text.encode()) for text in (self.name, purpose))])

    def pieces(self, total: int) -> Iterator[slice]:
        """Yields slices of 0..total, each of one forward pass."""
        for start in range(0, total, self.batch):
            yield slice(start, min(start + self.batch, total))

    def under_masks(self, batches: Iterable[Masks]) -> NDArray[np.float64]:
        """Returns the scores (M,) under all masks, of which one batch exists at a time."""
        scores = [check_finite(self.answer(self.image, masks))[:, self.target] for masks in batches]
        return np.concatenate(scores).astype(np.float64)

    def of_images(self, images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Returns the probabilities of all classes (N, K) for images like :attr:`image`, without any mask."""
        return np.concatenate([check_finite(self.answer(images[piece], None)) for piece in self.pieces(len(images))])
