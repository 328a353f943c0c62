"""Pearson's correlation, None where a series is constant but for rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""Spread, relative to the largest absolute value, below which numbers are equal but for the rounding of their sums."""


def spreads(values: NDArray[np.float64]) -> bool:
    """Tells whether numbers differ by more than rounding."""
    return bool(np.ptp(values) > ROUNDING * np.abs(values).max())


def correlate(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Returns Pearson's correlation of two series (N,), in [-1, 1]; None where one of them is constant."""
    if len(a) < 2 or not spreads(a) or not spreads(b):
        return None
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))
