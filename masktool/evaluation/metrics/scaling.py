"""Maps of any unit brought to [0, 1], for metrics that take a map for a mask, and whether a map has a scale at all."""

from __future__ import annotations

import numpy as np

from masktool.evaluation.maps import Map


def is_flat(attributions: Map) -> bool:
    """Tells whether a map is constant: such a map shows nothing, and is like no other."""
    return bool(attributions.max() == attributions.min())


def min_max(attributions: Map) -> Map:
    """Returns the map stretched to [0, 1], the smallest value 0 and the largest 1; a constant map becomes 0."""
    smallest, largest = attributions.min(), attributions.max()
    if largest == smallest:
        return np.zeros_like(attributions)
    scaled: Map = (attributions - smallest) / (largest - smallest)
    return scaled


def positive_part(attributions: Map, signed: bool) -> Map:
    """Returns the part of a map that speaks for the class: each value's excess over the map's zero, at least 0.

    Args:
        attributions: map (h, w).
        signed: whether 0 separates support from opposition; otherwise the smallest value stands for 0.
    """
    zero = 0.0 if signed else attributions.min()
    part: Map = np.maximum(attributions - zero, 0)
    return part
