"""How strong the prior of a Bayesian linear regression is: as strong as makes the scores that were seen most likely.

Weights w ~ N(0, s^2 / lambda S), noise e ~ N(0, s^2); lambda is that of the highest evidence. Source: Christopher
Bishop, "Pattern Recognition and Machine Learning", 2006, sections 3.3 to 3.5.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PENALTIES = np.geomspace(1e-6, 1e3, 37)
"""Values of lambda that are tried, as shares of the features' mean variance: from none to all of the map."""
ROUNDING_SHARE = 1e-12
"""Share of the scores' variance below which what a fit leaves is float64's rounding."""


class Strength(NamedTuple):
    """The strength of a prior.

    Attributes:
        evidence: how likely the scores are, as a logarithm less a constant.
        penalty: lambda.
        noise: the variance of what the linear model leaves of a score, s^2.
    """

    evidence: float
    penalty: float
    noise: float


def strongest_evidence(
    values: NDArray[np.float64], projected: NDArray[np.float64], squares: float, degrees: float, scale: float
) -> Strength:
    """Returns the strength of the highest evidence.

    Args:
        values: the sums of squares of the features' coordinates, in a basis in which these are uncorrelated; those that
            are 0 may be left out.
        projected: the sums of the same coordinates times the scores.
        squares: the sum of the squared scores, less their mean.
        degrees: the number of scores less one.
        scale: the mean of the values.
    """
    penalties = PENALTIES * (scale or 1.0)
    ridged = values + penalties[:, None]  # (penalties, values)
    left = squares - (np.square(projected) / ridged).sum(axis=1)
    noise = np.maximum(left, ROUNDING_SHARE * squares + np.finfo(np.float64).tiny) / degrees
    evidence = -0.5 * (degrees * np.log(noise) + np.log(ridged / penalties[:, None]).sum(axis=1))
    best = int(evidence.argmax())
    return Strength(float(evidence[best]), float(penalties[best]), float(noise[best]))


def symmetric_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the symmetric root of a prior's covariance (S, S)."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
