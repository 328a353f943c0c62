"""Bilinear interpolation along one axis, as a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def enlargement(length: int, cells: int) -> NDArray[np.float64]:
    """Returns the matrix (length, cells) of bilinear interpolation between the cells' centres; rows sum to 1."""
    positions = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(cells)), 0)
