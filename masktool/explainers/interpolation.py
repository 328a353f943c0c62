"""Bilinear interpolation along one axis, as a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def whole_enlargement(length: int, cells: int) -> NDArray[np.int64]:
    """Returns :func:`enlargement` in whole numbers, its entries times ``2 * length``: (length, cells) int64."""
    positions = np.clip((2 * np.arange(length) + 1) * cells - length, 0, 2 * length * (cells - 1))
    return np.maximum(2 * length - np.abs(positions[:, None] - 2 * length * np.arange(cells)), 0)


def enlargement(length: int, cells: int) -> NDArray[np.float64]:
    """Returns the matrix (length, cells) of bilinear interpolation between the cells' centres; rows sum to 1."""
    return whole_enlargement(length, cells) / (2 * length)
