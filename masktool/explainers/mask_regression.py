"""The mean score while a pixel is kept, from a linear model of the scores under few random masks.

For masks M of a known distribution, with phi(M) the means of M over small patches of the picture,

    E[f | x kept] = E f + Cov(f, M(x)) / E M(x)

depends on f through its linear part alone: with the best linear model f = b + w . phi(M) + e, in which e is
uncorrelated with every mask value, Cov(f, M(x)) = Cov(M(x), phi) w. The covariance follows from the masks, without the
model: what is left to estimate is w, free of the noise of how the few masks that were scored happen to overlap.

w is the posterior mean of Bayesian ridge regression: w ~ N(0, s^2 / lambda S), e ~ N(0, s^2), where S lets
neighbouring patches have like weights. lambda and the reach of S are those of the highest evidence; the weight of the
prior vanishes as scores are added, so that the map tends to the published one. The posterior variance, which holds both
the noise of the scores and what the prior may be off by, is the squared standard error.

Sources: A. B. Owen, "Monte Carlo theory, methods and examples", 2013, section 8.9 (regression estimators with control
variates), https://artowen.su.domains/mc/; Christopher Bishop, "Pattern Recognition and Machine Learning", 2006,
sections 3.3 to 3.5 (posterior and evidence of linear regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.explainers.evidence import strongest_evidence, symmetric_root

Floats = NDArray[np.float64]


class MaskMoments(NamedTuple):
    """What is known of the masks without any model, from ``total`` of them.

    Attributes:
        kept: the mean mask at P points, (P,).
        features: the mean of F features of a mask, (F,).
        covariance: the covariance of the mask at the points with the features, (P, F).
        total: the number of masks.
    """

    kept: Floats
    features: Floats
    covariance: Floats
    total: int


class Posterior(NamedTuple):
    """What the scores say of one target's weights, in a basis in which they are independent.

    Attributes:
        evidence: the logarithm of the evidence, up to a constant.
        basis: the basis (F, F); the weights are ``basis @ mean``.
        mean: the mean of the coordinates, (F,).
        spread: their variances, (F,).
        noise: the variance of what the linear model leaves of a score.
    """

    evidence: float
    basis: Floats
    mean: Floats
    spread: Floats
    noise: float


class MaskRegression:
    """Sums over scored masks, from which linear models are fitted; its size does not depend on their number.

    Args:
        n_features: the number of features F of a mask.
        n_targets: the number of targets T.
    """

    def __init__(self, n_features: int, n_targets: int) -> None:
        self.count = 0
        self.features, self.products = np.zeros(n_features), np.zeros((n_features, n_features))
        self.scores, self.squares = np.zeros((2, n_targets))
        self.crossed = np.zeros((n_features, n_targets))

    def add(self, features: NDArray[np.floating], scores: Floats) -> None:
        """Adds masks with features (m, F) and scores (m, T)."""
        exact = features.astype(np.float64)
        self.count += len(exact)
        self.features += exact.sum(axis=0)
        self.products += exact.T @ exact
        self.scores += scores.sum(axis=0)
        self.squares += np.square(scores).sum(axis=0)
        self.crossed += exact.T @ scores

    def maps(self, moments: MaskMoments, roots: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Returns the mean score of each target while a point is kept, (T, P), and its squared standard error.

        Args:
            moments: what is known of the masks.
            roots: for each prior that is tried, a matrix (F, F) whose product with its transpose is the covariance S.
        """
        found = [self.describe(target, posterior, moments) for target, posterior in enumerate(self.fit(roots))]
        maps, variances = zip(*found, strict=True)
        return np.stack(maps), np.stack(variances)

    def fit(self, roots: Sequence[Floats]) -> list[Posterior]:
        """Returns each target's weights under the prior of the highest evidence."""
        centred = self.products - np.outer(self.features, self.features) / self.count
        crossed = self.crossed - np.outer(self.features, self.scores) / self.count
        squares = self.squares - np.square(self.scores) / self.count
        tried = []
        for root in roots:
            values, vectors = np.linalg.eigh(root.T @ centred @ root)
            basis = root @ vectors
            tried.append(
                [self.weigh(np.maximum(values, 0), basis, *each) for each in zip(crossed.T, squares, strict=True)]
            )
        return [max(of_target, key=lambda each: each.evidence) for of_target in zip(*tried, strict=True)]

    def weigh(self, values: Floats, basis: Floats, crossed: Floats, squares: float) -> Posterior:
        """Returns one target's weights for the penalty of the highest evidence.

        Args:
            values: the sums of squares (F,) of the features' coordinates in the basis.
            basis: the basis (F, F), in which the coordinates are uncorrelated.
            crossed: the sums (F,) of the features times the scores, both less their means.
            squares: the sum of the squared scores, less their mean.
        """
        projected = basis.T @ crossed
        best = strongest_evidence(values, projected, squares, max(1, self.count - 1), float(values.mean()))
        ridged = values + best.penalty
        return Posterior(best.evidence, basis, projected / ridged, best.noise / ridged, best.noise)

    def describe(self, target: int, posterior: Posterior, moments: MaskMoments) -> tuple[Floats, Floats]:
        """Returns the mean score of one target while a point is kept, (P,), and its squared standard error."""
        weights: Floats = posterior.basis @ posterior.mean
        along: Floats = moments.covariance @ posterior.basis / moments.kept[:, None]
        offset = self.scores[target] / self.count - (self.features / self.count - moments.features) @ weights
        variance = np.square(along) @ posterior.spread + posterior.noise / self.count
        explained = (
            float(weights @ self.products @ weights) / self.count - float(weights @ self.features / self.count) ** 2
        )
        return offset + along @ posterior.mean, variance + max(0.0, explained) / (moments.total * moments.kept)


def smooth_roots(size: Size, reaches: Sequence[float]) -> list[Floats]:
    """Returns a root of a prior for each reach: weights on a lattice, correlated as a Gaussian of their distance.

    Args:
        size: (rows, columns) of the lattice, or its lengths along other axes.
        reaches: the standard deviations of the Gaussians, in steps of the lattice; 0 correlates nothing.

    Returns:
        The matrices, (rows * columns, rows * columns) each.
    """
    return [kron_all([root_along(length, reach) for length in size]).astype(np.float64) for reach in reaches]


def kron_all(matrices: Sequence[Floats]) -> Floats:
    """Returns the Kronecker product of matrices."""
    product = np.eye(1)
    for matrix in matrices:
        product = np.kron(product, matrix).astype(np.float64)
    return product


def root_along(length: int, reach: float) -> Floats:
    """Returns a symmetric root of the correlation along one axis, (length, length)."""
    if reach == 0:
        return np.eye(length)
    steps = np.arange(length)
    return symmetric_root(np.exp(-np.square(steps[:, None] - steps) / (2 * reach**2)))
