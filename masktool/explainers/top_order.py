"""Since when the parts of a map with the highest values have stood in one order.

The parts are a map's segments or cells; of a map of pixels, whose order is noise, the cells of a 7 x 7 grid, each by
its mean. Parts whose values differ by no more than rounding are of one rank, so that the batch, which decides the last
bit, does not decide the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.segmentation import square_cells

CELLS_PER_SIDE = 7
"""Cells along each side of a map of pixels: as many as the grids of RISE, Sobol and HSIC have."""
ROUNDING = 1e-5
"""Difference of two values, as a share of the map's range, up to which they count as equal: hundreds of roundings."""


class TopOrder:
    """The order of the parts of one target's map with the highest values, over looks at more and more samples.

    Args:
        count: the number of parts that are looked at.

    Attributes:
        since: the number of samples at which the present order was first seen; 0 before the first look.
    """

    def __init__(self, count: int) -> None:
        self.count, self.since = count, 0
        self._order: NDArray[np.intp] = np.zeros(0, np.intp)

    def look(self, values: NDArray[np.floating[Any]], samples: int) -> None:
        """Takes the map of a number of samples: its segments' values (S,), or its pixels (h, w)."""
        parts = values if values.ndim == 1 else mean_of_cells(values)
        if not self.since or not keeps_order(parts, self._order):
            self._order = np.argsort(-parts, kind="stable")[: self.count]
            self.since = samples


def mean_of_cells(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns the mean of each cell of a grid over a map (h, w)."""
    cells = square_cells(values.shape, CELLS_PER_SIDE).ravel()
    return np.bincount(cells, values.ravel().astype(np.float64)) / np.bincount(cells)


def keeps_order(values: NDArray[np.floating[Any]], order: NDArray[np.intp]) -> bool:
    """Tells whether values (S,) fall along an order of some of them, and no other is higher than the last of these."""
    others = np.delete(values, order)
    falling = np.concatenate([values[order], [others.max()] if others.size else []])
    return bool((np.diff(falling) <= ROUNDING * np.ptp(values)).all())
