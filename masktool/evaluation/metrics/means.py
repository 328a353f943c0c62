"""Means of figures of which some may be undefined (None)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_of_all(figures: Sequence[float | None]) -> float | None:
    """Returns the mean of all figures; None where one of them is undefined."""
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if len(defined) == len(figures) else None


def mean_of_defined(figures: Sequence[float | None]) -> float | None:
    """Returns the mean of the defined figures; None where no figure is defined."""
    defined = [figure for figure in figures if figure is not None]
    return sum(defined) / len(defined) if defined else None
