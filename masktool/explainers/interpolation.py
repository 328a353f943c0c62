"""Bilinear interpolation along one axis, as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def whole_enlargement(length: int, cells: int) -> NDArray[np.int64]:
    """Returns :func:`enlargement` in whole numbers, its entries times ``2 * length``: (length, cells) int64."""
    positions = np.clip((2 * np.arange(length) + 1) * cells - length, 0, 2 * length * (cells - 1))
    return np.maximum(2 * length - np.abs(positions[:, None] - 2 * length * np.arange(cells)), 0)


def enlargement(length: int, cells: int) -> NDArray[np.float64]:
    """Returns the matrix (length, cells) of bilinear interpolation between the cells' centres; rows sum to 1."""
    return whole_enlargement(length, cells) / (2 * length)


def multiply_along(values: NDArray[Any], matrices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Returns values (N, g, ...) times a matrix along each axis but the first.

    Args:
        values: the values.
        matrices: one for each axis, (length, g), or (N, length, g) with one for each row of the values.
    """
    *others, last = matrices
    for axis, matrix in enumerate(others, start=1):
        moved = np.moveaxis(values, axis, -2)
        values = np.moveaxis(beside_rows(matrix, moved.ndim) @ moved, -2, axis)
    row = values[..., None, :] if values.ndim < MATRIX_RANK + 1 else values
    found: NDArray[Any] = row @ beside_rows(last, row.ndim).swapaxes(-1, -2)
    return found[..., 0, :] if row is not values else found


MATRIX_RANK = 2


def beside_rows(matrix: NDArray[Any], rank: int) -> NDArray[Any]:
    """Returns a matrix, or one for each row, that is multiplied with values of a rank."""
    if matrix.ndim == MATRIX_RANK:
        return matrix
    return matrix.reshape(len(matrix), *[1] * (rank - matrix.ndim), *matrix.shape[1:])
