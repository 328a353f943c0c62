"""The relative difference between the outputs of two runs, as all figures use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST_SCALE = np.finfo(np.float32).tiny
"""Below the smallest normal number of single precision, kernels may take a number for 0."""


def relative_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Returns the largest max |found − expected| / max |expected| over all outputs.

    A number that is NaN in both, or the same infinity, agrees, and counts in neither maximum. Where everything expected
    is 0, the divisor is max |found| instead, so that the result is 0 for the same zeros, else 1.

    Args:
        found: the outputs of one run.
        expected: the outputs of the other run, in the same order.

    Returns:
        A number from 0; infinity where shapes, NaN or infinities differ.
    """
    return max((difference_of_output(*pair) for pair in zip(found, expected, strict=True)), default=0.0)


def difference_of_output(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the relative difference of one output, see :func:`relative_difference`."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # infinity less itself, which is the same
        difference = np.max(np.where(same, 0.0, np.abs(found - expected)), initial=0.0)
    if not np.isfinite(difference):
        return float("inf")
    scale = largest_finite(expected) if largest_finite(expected) >= SMALLEST_SCALE else largest_finite(found)
    return float(difference / max(scale, SMALLEST_SCALE))


def largest_finite(values: np.ndarray) -> float:
    """Returns max |values| over the finite values; 0 where there are none."""
    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
