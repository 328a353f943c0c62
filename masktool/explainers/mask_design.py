"""How a method's masks are made: from small rows, in memory here, or by a graph on the device that the model runs on.

A design says how a batch of rows becomes masks. Its graph stands in :mod:`masktool.embedding.designs`, for files that
explain themselves and for sessions on a device, which then copy rows instead of masks.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.errors import MasktoolError

Masks = NDArray[np.float32]
"""Masks (M, 1, h, w), 1 = kept, 0 = missing."""
Rows = Mapping[str, NDArray[Any]]
"""What stands for a batch of masks, by name: arrays (M, ...) float32 or int32 with one row for each mask."""


class NoGraphError(MasktoolError):
    """A mask design that no graph is written for; its masks are made in memory."""


class MaskDesign(abc.ABC):
    """How masks are made of rows."""

    @property
    def shared(self) -> Rows:
        """What all masks are made from, by name: float32 or int32 arrays of any shape."""
        return {}

    @abc.abstractmethod
    def expand(self, rows: Rows) -> Masks:
        """Returns the masks of a batch of rows."""


class WindowDesign(MaskDesign):
    """Masks with one missing window each, all windows of one size.

    Attributes:
        size: (height, width) of the masks in pixels, or what their axes are.
        window: (height, width) of the windows in pixels, or what their axes are.
    """

    size: Size
    window: Size

    @abc.abstractmethod
    def corners(self, rows: Rows) -> NDArray[np.int64]:
        """Returns where the windows of a batch of rows start along each axis, (M, 2) of images."""

    @abc.abstractmethod
    def expand_corners(self, corners: NDArray[np.int64]) -> Masks:
        """Returns the masks whose windows start at corners (M, 2)."""

    def expand(self, rows: Rows) -> Masks:
        """Returns masks that are 0 inside their window, 1 elsewhere."""
        return self.expand_corners(self.corners(rows))


class MaskSums(NamedTuple):
    """Sums over the masks m of one batch, for the scores f of T targets.

    Attributes:
        masks: the sum of m, (h * w,).
        squares: the sum of m², (h * w,).
        scored: the sums of f m, (T, h * w).
        scored_squares: the sums of f m², (T, h * w).
        squared: the sums of f² m², (T, h * w).
    """

    masks: NDArray[np.floating[Any]]
    squares: NDArray[np.floating[Any]]
    scored: NDArray[np.floating[Any]]
    scored_squares: NDArray[np.floating[Any]]
    squared: NDArray[np.floating[Any]]

    @classmethod
    def nothing(cls, targets: int, pixels: int) -> MaskSums:
        """Returns the sums over no masks, float64."""
        return cls(*np.zeros((2, pixels)), *np.zeros((3, targets, pixels)))

    def add(self, more: MaskSums) -> MaskSums:
        """Returns the sums over the masks of both."""
        return MaskSums(*(one + other for one, other in zip(self, more, strict=True)))


class MaskBatch(Protocol):
    """The masks of one batch, wherever they are."""

    def __len__(self) -> int:
        """Returns the number of masks."""

    def add_up(self, scores: NDArray[np.float32], *, binary: bool) -> MaskSums:
        """Returns sums over the masks.

        Args:
            scores: the scores (T, M) of the targets under the masks.
            binary: whether every value of the masks is 0 or 1, and so its own square.
        """


class MasksInMemory(NamedTuple):
    """Masks (M, 1, h, w) as an array."""

    values: Masks

    def __len__(self) -> int:
        """Returns the number of masks."""
        return len(self.values)

    def add_up(self, scores: NDArray[np.float32], *, binary: bool) -> MaskSums:
        """Returns sums over the masks."""
        flat = self.values.reshape(len(self.values), -1)
        squares = flat if binary else np.square(flat)
        total, scored = flat.sum(axis=0), scores @ flat
        return MaskSums(
            total,
            total if binary else squares.sum(axis=0),
            scored,
            scored if binary else scores @ squares,
            np.square(scores) @ squares,
        )


class MasksOfRows(NamedTuple):
    """Masks that are made of their rows when they are asked for."""

    design: MaskDesign
    rows: Rows

    def __len__(self) -> int:
        """Returns the number of masks."""
        return len(next(iter(self.rows.values())))

    def add_up(self, scores: NDArray[np.float32], *, binary: bool) -> MaskSums:
        """Returns sums over the masks."""
        return MasksInMemory(self.design.expand(self.rows)).add_up(scores, binary=binary)


def coarsen_grid(grid_size: int, n_masks: int, axes: int = 2, per_cell: int = 2) -> int:
    """Returns the cells per side of a grid, at most ``grid_size``, each of which has ``per_cell`` masks."""
    return min(grid_size, max(2, whole_root(n_masks // per_cell, axes)))


def whole_root(number: int, degree: int) -> int:
    """Returns the largest whole number whose power of a degree is no larger than a number."""
    root = round(number ** (1 / degree))
    return root - 1 if root**degree > number else root
