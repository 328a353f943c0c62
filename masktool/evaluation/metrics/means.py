"""Means of figures of which some may be undefined, which is None."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_of_all(figures: Sequence[float | None]) -> float | None:
    """Returns the mean; None where one of the figures is undefined."""
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if len(defined) == len(figures) else None


def mean_of_defined(figures: Sequence[float | None]) -> float | None:
    """Returns the mean of the defined figures; None where there are none."""
    defined = [figure for figure in figures if figure is not None]
    return sum(defined) / len(defined) if defined else None
