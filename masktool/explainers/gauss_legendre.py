"""Points and weights of Gauss and Legendre's rule, which integrates polynomials of degree 2 n - 1 exactly.

The points are the zeros of the Legendre polynomial P_n. numpy finds them as the eigenvalues of a matrix (n, n), whose
memory grows with n^2 and whose time with n^3: 10,000 would take 800 MB and minutes. Beyond a few hundred Newton's
method finds each from Tricomi's approximation, in memory that grows with n.

Source: Milton Abramowitz and Irene A. Stegun, "Handbook of Mathematical Functions", 1964, 22.7.10 (recurrence), 22.8.5
(derivative), 22.16.6 (zeros) and 25.4.29 (weights).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_EIGENVALUES = 256
"""Points up to which numpy's are taken: to the last bit those that files that explain themselves hold."""
NEWTON_STEPS = 4
"""Each doubles the right digits, of which the first approximation has five or more."""


def gauss_legendre(count: int) -> tuple[Floats, Floats]:
    """Returns the points in (-1, 1), ascending, and their weights, of sum 2: (count,) each."""
    if count <= MOST_EIGENVALUES:
        return np.polynomial.legendre.leggauss(count)
    angles = np.pi * (np.arange(count, 0, -1) - 0.25) / (count + 0.5)
    points = np.cos(angles) * (1 - (count - 1) / (8 * count**3))
    for _ in range(NEWTON_STEPS):
        value, slope = legendre(count, points)
        points -= value / slope
    points = (points - points[::-1]) / 2  # symmetric about 0, as the zeros are
    _, slope = legendre(count, points)
    weights = 2 / ((1 - points) * (1 + points) * np.square(slope))
    return points, weights * (2 / weights.sum())


def legendre(degree: int, points: Floats) -> tuple[Floats, Floats]:
    """Returns the Legendre polynomial of a degree from 1, and its derivative, at points within (-1, 1)."""
    before, value = np.ones_like(points), points.copy()
    for order in range(2, degree + 1):
        before, value = value, ((2 * order - 1) * points * value - (order - 1) * before) / order
    return value, degree * (before - points * value) / ((1 - points) * (1 + points))
