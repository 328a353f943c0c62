"""Removing more and more segments of an image: which segments there are, which go first, and the masks that result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.evaluation.scene import Scene
from masktool.explainers.mask_design import Masks
from masktool.explainers.segmentation import SEGMENTERS, Segments, read_label_map, relabel
from masktool.option_checks import check_choice, check_count

SegmentKind = Literal["grid", "slic", "given"]
Order = Literal["random", "most-salient", "least-salient"]
ORDERS: tuple[Order, ...] = get_args(Order)
CELLS_PER_SIDE = 14
"""Cells per side of the default grid: each 16 of 224 pixels wide, as the paper on layer masking removes them."""
N_SEGMENTS = CELLS_PER_SIDE**2
"""Default number of superpixels: as many as the default grid has cells."""
HALF = 0.5
"""Counts that fall between two whole numbers are rounded up, at every fraction alike."""


@dataclasses.dataclass(frozen=True)
class SegmentChoice:
    """A choice of how images are cut into segments.

    Attributes:
        kind: kind of the segments: ``grid`` (square cells), ``slic`` (superpixels), or ``given`` (each image's own
            label map).
        side: side of a grid's cells, in pixels of the model's input; None for a 14th of its shorter side. Cells at the
            right and the lower border are smaller where it does not divide the input.
        n_segments: rough number of superpixels.
    """

    kind: SegmentKind = "grid"
    side: int | None = None
    n_segments: int = N_SEGMENTS

    def __post_init__(self) -> None:
        check_choice("segments", self.kind, get_args(SegmentKind))
        check_count("n_segments", self.n_segments)
        if self.side is not None:
            check_count("side", self.side)
            if self.kind != "grid":
                raise MasktoolError("only a grid has a side", where=f"segments {self.kind}", got=f"side {self.side}")

    def describe(self) -> dict[str, Any]:
        """Returns everything that decides the segments, JSON values by name."""
        side = self.side if self.kind == "grid" else None
        n_segments = self.n_segments if self.kind == "slic" else None
        return {"segments": self.kind, "side": side, "n_segments": n_segments}


def cut_segments(scene: Scene, choice: SegmentChoice) -> Segments:
    """Returns the segments of an image at the model's input, as labels (h, w).

    Raises:
        MasktoolError: the image's own label map is wanted, and missing or of another size than the photograph.
    """
    if choice.kind == "grid":
        return cut_cells(scene.size, choice.side or max(1, round(min(scene.size) / CELLS_PER_SIDE)))
    if choice.kind == "slic":
        return relabel(SEGMENTERS["slic"](scene.pixels, choice.n_segments))
    if scene.known.segments is None:
        raise MasktoolError("no label map", where=scene.known.name, fix="give one, or cut by grid or slic")
    return relabel(scene.at_input(read_label_map(scene.known.segments)))


def cut_cells(size: tuple[int, int], side: int) -> Segments:
    """Returns (height, width) cut into square cells, numbered from the upper left corner, row by row."""
    rows, columns = (np.arange(length) // side for length in size)
    return (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)


def segment_means(values: NDArray[Any], segments: Segments) -> NDArray[np.float64]:
    """Returns the mean of a map (h, w) over each segment, (S,)."""
    return np.bincount(segments.ravel(), values.ravel()) / np.bincount(segments.ravel())


def descending_order(scores: NDArray[np.floating[Any]], rng: np.random.Generator) -> NDArray[np.intp]:
    """Returns the segments, those of the highest score first; ties stand in random order."""
    shuffled = rng.permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")]


def remove_first(order: NDArray[np.intp], counts: npt.ArrayLike) -> NDArray[np.bool_]:
    """Returns which segments are gone, (C, S), when the first of an order are, as many as each of the C counts."""
    ranks = np.empty(len(order), np.intp)
    ranks[order] = np.arange(len(order))
    return ranks < np.asarray(counts)[:, None]


def remove_fractions(order: NDArray[np.intp], fractions: Sequence[float]) -> NDArray[np.bool_]:
    """Returns which segments are gone at each fraction of the segments, (F, S)."""
    return remove_first(order, np.floor(np.asarray(fractions) * len(order) + HALF))


def masks_without(removed: NDArray[np.bool_], segments: Segments, batch: int) -> Iterator[Masks]:
    """Yields masks in which segments are missing, a batch at a time.

    Args:
        removed: whether each of S segments is gone, in each of M masks, (M, S).
        segments: labels (h, w) of the segments, from 0.
        batch: number of masks in a batch.
    """
    kept = (~removed).astype(np.float32)
    for start in range(0, len(kept), batch):
        yield kept[start : start + batch, segments][:, None]
