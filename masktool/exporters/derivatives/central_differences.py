"""Compares gradients with central differences: ``(f(x + h d) − f(x − h d)) / 2 h`` against ``g · d``.

The directions d are random ones, of which each notices what is wrong with g anywhere, and that of g itself, along which
f changes most. In float64 the step is so small that neither rounding nor curvature matters. In float32 several steps
are taken; of three next to one another that agree best the middle one counts, and how far they disagree is known.

Networks have kinks: at one that rounding decides, both sides are right. So several points are measured, and the median
counts.

Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006, section 8.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from masktool.exporters.derivatives.float64 import Forward
from masktool.exporters.derivatives.points import Feed
from masktool.exporters.derivatives.scalar_ends import Scalar, summands_of

EXACT_STEP = 1e-6
"""Of central differences in float64, relative to the size of x: their error is some 1e-10 of the gradient."""
SINGLE_STEPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
"""The same in float32, where rounding asks for long steps and curvature for short ones."""
CANCELLED_SHARE = 1e-2
"""Of the slopes of all summands, as if none cancelled another: a gradient smaller than that is judged by it, for it has
the rounding of what cancelled, as that of a sum of probabilities, which is 0."""
RESOLVED_SHARE = 1e-4
"""Of the summands themselves, for a step as large as x: the same, for what float32 does not resolve."""
ZERO_SHARE = 1e-3
"""Of the least slope by which a gradient is judged: what is rounding alone."""
SMALLEST = float(np.finfo(np.float64).tiny)


@dataclasses.dataclass(frozen=True)
class CentralDifferences:
    """What central differences are taken of.

    Attributes:
        forward: the function that runs the network and returns the output.
        exact: whether it computes in float64.
        scalar: the number of each row of the output that is differentiated.
        batched: whether the first axis of the output is the batch.
    """

    forward: Forward
    exact: bool
    scalar: Scalar
    batched: bool

    def along(self, feed: Feed, weights: np.ndarray | None, name: str, direction: np.ndarray) -> Slope:
        """Returns the slope of the sum of all rows' numbers along a direction of one input."""
        value = feed[name].astype(np.float64)
        size = float(np.sqrt(np.mean(value**2))) if value.size else 0.0
        steps = [step * (size or 1.0) for step in ((EXACT_STEP,) if self.exact else SINGLE_STEPS)]
        slopes = [self.slope_by(step, size or 1.0, feed, weights, name, direction) for step in steps]
        if self.exact:
            return slopes[0]
        threes = [slopes[start : start + 3] for start in range(len(slopes) - 2)]
        best = min(threes, key=spread_of)
        return best[1]._replace(spread=spread_of(best))

    def slope_by(
        self, step: float, size: float, feed: Feed, weights: np.ndarray | None, name: str, direction: np.ndarray
    ) -> Slope:
        """Returns the slope that a step to either side tells; ``size`` is that of the input's numbers."""
        value, sides = feed[name].astype(np.float64), []
        for way in (step, -step):
            moved = value + way * direction
            point = {**feed, name: moved if self.exact else moved.astype(feed[name].dtype)}
            sides.append(summands_of(self.forward(point), self.scalar, weights, batched=self.batched))
        rise = (sides[0] - sides[1]) / (2 * step)
        cancelled, unresolved = np.abs(rise).sum(), np.abs(sides[0]).sum() / size
        least = max(CANCELLED_SHARE * float(cancelled), RESOLVED_SHARE * float(unresolved), SMALLEST)
        return Slope(float(rise.sum()), least, 0.0)


class Slope(NamedTuple):
    """A slope by central differences.

    Attributes:
        slope: the slope of the sum of all rows' numbers.
        least: the least slope by which a gradient is judged: one far below is rounding.
        spread: how far several steps disagree about the slope.
    """

    slope: float
    least: float
    spread: float


class SlopeAgreement(NamedTuple):
    """How a gradient compares with central differences, both relative to the length of the gradient.

    Attributes:
        difference: how far they lie apart.
        spread: how far the central differences themselves do, for several steps.
        is_zero: whether the gradient is 0 but for rounding.
    """

    difference: float
    spread: float
    is_zero: bool


def spread_of(slopes: Sequence[Slope]) -> float:
    """Returns how far slopes by several steps lie apart."""
    return max(each.slope for each in slopes) - min(each.slope for each in slopes)


def compare_gradient(
    differences: CentralDifferences,
    feed: Feed,
    weights: np.ndarray | None,
    name: str,
    gradient: np.ndarray,
    rng: np.random.Generator,
) -> SlopeAgreement:
    """Compares the gradient with respect to one input with central differences, at one point.

    Args:
        differences: what differences are taken of.
        feed: the point: a value for every input.
        weights: the weights of the output; None where there are none.
        name: the name of the input.
        gradient: the gradient, in the input's shape.
        rng: the generator of random directions.
    """
    exact = gradient.astype(np.float64)
    length = float(np.linalg.norm(exact))
    found, least = [], 0.0
    for direction in directions_for(exact, length, rng):
        slope = differences.along(feed, weights, name, direction)
        expected = float((exact * direction).sum())
        scale = max(length, abs(expected), slope.least)
        found.append((abs(slope.slope - expected) / scale, slope.spread / scale))
        least = max(least, slope.least)
    return SlopeAgreement(*max(found), is_zero=length <= ZERO_SHARE * least)


def directions_for(gradient: np.ndarray, length: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields directions whose numbers are of size 1: two random ones, and that of the gradient."""
    yield rng.standard_normal(gradient.shape)
    yield rng.standard_normal(gradient.shape)
    if length:
        yield gradient * (np.sqrt(gradient.size) / length)


def median_of(points: Sequence[Mapping[str, SlopeAgreement]], name: str) -> SlopeAgreement:
    """Returns the agreement of the gradient with respect to one input at the median point."""
    return sorted(each[name] for each in points)[len(points) // 2]
