"""The linear model that fits the scores of random sets of segments best, from few of them.

LIME's weights tend to those of one linear model: that which fits the score f(z) best over *all* sets of segments z,
each as likely as it is drawn, times its weight pi(z). This is the limit here too; the way there has less noise.

1. A probability f saturates, its log-odds l are nearer to a sum. From l = b + v . z + e, e ~ N(0, t^2), follows a curve
   g(z) = E 1 / (1 + exp(-b - v . z - e)), whose own best linear model needs no pass through the network: its weights
   are taken over many sets that nobody scores.
2. What g leaves, f - g, has a linear model too. Its weights are added, so that the sum tends to f's whatever g is.
3. Weights are posterior means under a prior by which neighbouring segments have like ones. How strong it is and how far
   it reaches is what makes the scores most likely (:mod:`masktool.explainers.evidence`); as scores are added it fades.

By the same evidence the scores themselves are taken in place of log-odds where these are nearer to a sum.

The free sets of 1. are drawn by the product of probability and weight, which depends on a set's size alone, so that the
weights are gone (Zeren Tan, Yang Tian and Jian Li, "GLIME: General, Stable and Local LIME Explanation", NeurIPS 2023,
https://arxiv.org/abs/2311.15722). The correction in 2. is a regression estimator (A. B. Owen, "Monte Carlo theory,
methods and examples", 2013, section 8.9, https://artowen.su.domains/mc/).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.evidence import strongest_evidence, symmetric_root
from masktool.explainers.segmentation import Segments

Floats = NDArray[np.float64]

REACHES = (0.5, 1.0, 2.0)
"""How far like weights may reach, in mean distances of neighbouring segments, besides not at all."""
LARGEST_SMOOTHED = 400
"""Most segments that may have like weights: beyond, decompositions of square matrices would take the time of passes."""
CERTAIN = 1e-7
"""Probability below which, or above one less which, log-odds are cut: float32 has no more digits near 1."""
FREE_SETS, FREE_SHARE, FREE_VALUES = 1 << 12, 16, 1 << 21
"""Sets that are not scored, over which the curve's linear model is taken: so many, or this many for each that is, but
no more than hold so many values; what they miss is far below the noise of the scores."""
FREE_SEED = 0x736574
"""Seed of those sets, which are the same whatever the seed of the explanation."""
FLAT_VARIANCE = 1e-12
"""Variance below which the scores are one number up to float32's rounding."""
EXPLAINED = 1e-4
"""Share of the scores' variance that a sum may leave where it needs no curve, even if log-odds are as near to a sum."""
FACTORS = (0.5, 2.0)
"""How far the scores may scale the curve: where they are noise the prior flattens it, and no factor is to undo that."""
NEGLIGIBLE = 1e-10
"""Share of the largest below which a sum of squares is rounding."""
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
"""Gauss-Hermite rule for means over a standard normal variable; its weights add up to sqrt(2 pi)."""


class BayesianFit(NamedTuple):
    """A linear model of one score.

    Attributes:
        evidence: how likely the scores are under it, as a logarithm less a constant.
        coefficients: the weight of each segment, (S,).
        variances: their posterior variances, (S,).
        intercept: the fitted score with nothing kept.
        noise: the variance of what the linear model leaves of a score.
    """

    evidence: float
    coefficients: Floats
    variances: Floats
    intercept: float
    noise: float


class Prior(NamedTuple):
    """One prior's part of a regression, before any score is known.

    Attributes:
        root: the symmetric root (S, S) of the weights' covariance, but for a factor; None stands for the identity.
        basis: directions (S, r) in which the prior has unit variance and the samples are uncorrelated.
        values: the samples' sums of squares along these, (r,).
    """

    root: Floats | None
    basis: Floats
    values: Floats

    @property
    def own(self) -> Floats | float:
        """The weights' variances, (S,), but for a factor."""
        return 1.0 if self.root is None else np.square(self.root).sum(axis=1)


class SegmentRegression:
    """Linear models of scores of the same n sets of segments.

    What a set and its complement have in common bears on no weight: the difference of a pair counts as one score.

    Args:
        design: which segments each set keeps, (n, S) of 0 and 1.
        weights: the weight of each set, (n,).
        pairs: the number, counting up, of the pair of complements that each set belongs to, (n,), or one of its own.
        roots: for each prior that is tried, a root of the covariance, see :class:`Prior`.
    """

    def __init__(
        self, design: NDArray[np.float32], weights: Floats, pairs: NDArray[np.int64], roots: Sequence[Floats | None]
    ) -> None:
        self.design = design.astype(np.float64)
        self.starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        self.signs = np.where(np.isin(np.arange(len(pairs)), self.starts), 1.0, -1.0)
        of_units = np.add.reduceat(weights, self.starts)
        self.weights = weights * (of_units.sum() / np.square(of_units).sum())  # sum up to the effective number of units
        self.of_units = np.add.reduceat(self.weights, self.starts)
        self.mean = np.average(self.design, axis=0, weights=weights)
        self.centred = self.design - self.mean
        self.units = self.differences(self.centred) / self.of_units[:, None]
        self.priors = [decompose(self.units * np.sqrt(self.of_units)[:, None], root) for root in roots]

    def fit(self, scores: Floats) -> BayesianFit:
        """Returns the linear model of scores (n,) under the prior of the highest evidence."""
        mean = float(np.average(scores, weights=self.weights))
        differences = self.differences((scores - mean)[:, None])[:, 0]
        crossed, squares = differences @ self.units, float((np.square(differences) / self.of_units).sum())
        degrees = max(1.0, float(self.of_units.sum()) - 1)
        tried = [
            strongest_evidence(
                prior.values, crossed @ prior.basis, squares, degrees, float(prior.values.sum()) / len(crossed)
            )
            for prior in self.priors
        ]
        prior, best = max(zip(self.priors, tried, strict=True), key=lambda each: each[1].evidence)
        coefficients = self.solve(scores - mean, prior.root, best.penalty)
        known = np.square(prior.basis) @ (1 / best.penalty - 1 / (prior.values + best.penalty))
        unknown = np.maximum(prior.own / best.penalty - known, 0)
        intercept = mean - float(self.mean @ coefficients)
        return BayesianFit(best.evidence, coefficients, best.noise * unknown, intercept, best.noise)

    def differences(self, values: Floats) -> Floats:
        """Returns of values (n, ...) those of the first of each pair less the second's, each times its weight."""
        return np.asarray(np.add.reduceat(values * (self.weights * self.signs)[:, None], self.starts), np.float64)

    def solve(self, deviations: Floats, root: Floats | None, penalty: float) -> Floats:
        """Returns the weights (S,) by all sets and their own weights, which those of a pair differ in a little."""
        scales = np.sqrt(self.weights)
        along, scaled = times(self.centred * scales[:, None], root), deviations * scales
        if len(along) < along.shape[1]:
            found = along.T @ np.linalg.solve(along @ along.T + penalty * np.eye(len(along)), scaled)
        else:
            found = np.linalg.solve(along.T @ along + penalty * np.eye(along.shape[1]), along.T @ scaled)
        return np.asarray(times(found, root), np.float64)


def times(values: Floats, root: Floats | None) -> Floats:
    """Returns values (..., S) times a symmetric root."""
    return values if root is None else np.asarray(values @ root)


def decompose(scaled: Floats, root: Floats | None) -> Prior:
    """Returns a prior's part of the regression on units (k, S), centred and scaled by the roots of their weights."""
    along = times(scaled, root)
    if len(along) >= along.shape[1]:
        values, vectors = np.linalg.eigh(along.T @ along)
        return Prior(root, times(vectors.T, root).T, np.maximum(values, 0))
    values, vectors = np.linalg.eigh(along @ along.T)
    kept = values > NEGLIGIBLE * max(float(values[-1]), np.finfo(np.float64).tiny)
    directions = (vectors[:, kept] / np.sqrt(values[kept])).T @ along
    return Prior(root, times(directions, root).T, values[kept])


def prior_roots(segments: Segments) -> list[Floats | None]:
    """Returns a root of each prior that is tried for segments (h, w): weights alike as a Gaussian of the distance."""
    n_features = int(segments.max()) + 1
    if n_features > LARGEST_SMOOTHED:
        return [None]
    labels = segments.ravel()
    areas = np.bincount(labels, minlength=n_features)
    places = np.stack([np.bincount(labels, each.ravel(), n_features) / areas for each in np.indices(segments.shape)])
    squares = np.square(places[:, :, None] - places[:, None]).sum(axis=0) * n_features / segments.size
    squares *= (n_features / segments.size) ** (2 / segments.ndim - 1)  # in sides of a segment, whatever its axes
    return [None, *(symmetric_root(np.exp(-squares / (2 * reach**2))) for reach in REACHES)]


class FreeSets(NamedTuple):
    """Sets of segments that are not scored, drawn by the product of their probability and weight.

    Attributes:
        kept: which segments each set keeps, (m, S) float32 of 0 and 1.
        alone: the variance of a segment less the covariance of two.
        together: the covariance of two segments.
    """

    kept: NDArray[np.float32]
    alone: float
    together: float

    def linear_weights(self, scores: Floats) -> Floats:
        """Returns the weights (S,) of the best linear model of scores (m,); the segments' covariance is exact."""
        crossed = (scores - scores.mean()) @ self.kept / len(scores)
        n_features = self.kept.shape[1]
        common = self.together * crossed.sum() / (self.alone + n_features * self.together)
        return np.asarray((crossed - common) / self.alone, np.float64)


def count_free_sets(n_scored: int, n_features: int) -> int:
    """Returns how many free sets stand beside scored ones."""
    return min(max(FREE_SETS, FREE_SHARE * n_scored), FREE_VALUES // n_features)


@functools.lru_cache(maxsize=2)
def draw_free_sets(count: int, n_features: int, p: float, kernel_width: float) -> FreeSets:
    """Returns free sets whose segments are kept with probability p and weighed by a kernel of a width."""
    sizes = np.arange(n_features + 1)
    shares = size_probabilities(n_features, p, kernel_width)
    mean = float(shares @ sizes) / n_features
    both = float(shares @ (sizes * (sizes - 1.0))) / (n_features * (n_features - 1)) if n_features > 1 else mean**2
    random = np.random.default_rng(FREE_SEED)
    places = random.random((count, n_features)).argsort(axis=1)
    kept = places < random.choice(sizes, (count, 1), p=shares)
    return FreeSets(kept.astype(np.float32), mean - both, both - mean**2)


def size_probabilities(n_features: int, p: float, kernel_width: float) -> Floats:
    """Returns how likely a set that is drawn and weighed keeps 0 to S segments, (S + 1,)."""
    sizes = np.arange(n_features + 1)
    counts = [math.lgamma(n_features + 1) - math.lgamma(s + 1) - math.lgamma(n_features - s + 1) for s in sizes]
    logarithms = (
        np.array(counts)
        + sizes * math.log(p)
        + (n_features - sizes) * math.log1p(-p)
        - np.square((1 - np.sqrt(sizes / n_features)) / kernel_width) / 2
    )
    shares = np.exp(logarithms - logarithms.max())
    return np.asarray(shares / shares.sum())


class LogOdds(NamedTuple):
    """The log-odds of scores, which a linear model is fitted to in place of these.

    Attributes:
        values: the log-odds, (n,).
        noise: the variance of what a linear model leaves of them.
    """

    values: Floats
    noise: float


def linear_part(
    regression: SegmentRegression, scores: Floats, odds: LogOdds | None, free: FreeSets
) -> tuple[Floats, Floats]:
    """Returns the weights (S,) of the best linear model of scores (n,), and their squared standard errors."""
    if odds is None:
        plain = regression.fit(scores)
        return plain.coefficients, plain.variances
    fit = regression.fit(odds.values)
    sums, fitted = curve(fit, odds.noise, free.kept)
    slope = slope_of(sums, fitted, np.ones(len(sums)))
    _, seen = curve(fit, odds.noise, regression.design)
    factor = float(np.clip(slope_of(seen, scores, regression.weights), *FACTORS))
    left = regression.fit(scores - factor * seen)
    weights = factor * (slope * fit.coefficients + free.linear_weights(fitted - slope * sums)) + left.coefficients
    return weights, (factor * slope) ** 2 * fit.variances + left.variances


def choose_log_odds(one_by_one: SegmentRegression, scores: Floats) -> LogOdds | None:
    """Returns the log-odds of scores (n,) if these are nearer to a sum than the scores are; None for the scores."""
    variance = float(np.var(scores))
    if variance < FLAT_VARIANCE or not ((scores >= 0) & (scores <= 1)).all():
        return None
    cut = np.clip(scores, CERTAIN, 1 - CERTAIN)
    values: Floats = np.log(cut) - np.log1p(-cut)
    fit, plain = one_by_one.fit(values), one_by_one.fit(scores)
    density = -float(one_by_one.weights @ (np.log(cut) + np.log1p(-cut)))  # of a score, as a share of its log-odds'
    is_sum = plain.noise <= EXPLAINED * variance
    return LogOdds(values, fit.noise) if fit.evidence + density > plain.evidence and not is_sum else None


def curve(fit: BayesianFit, noise: float, kept: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Returns log-odds by a model for sets (m, S), (m,), and the mean probabilities where these have a noise, (m,)."""
    sums = fit.intercept + kept @ fit.coefficients
    found = (1 + np.tanh((sums[:, None] + math.sqrt(noise) * NODES) / 2)) / 2  # exp would overflow
    return sums, found @ (NODE_WEIGHTS / NODE_WEIGHTS.sum())


def slope_of(one: Floats, other: Floats, weights: Floats) -> float:
    """Returns the slope of the line that gives other values (n,) from one's (n,) best; 1 where these are flat."""
    deviations = one - np.average(one, weights=weights)
    square = float(weights @ np.square(deviations))
    return float(weights @ (deviations * other)) / square if square > 0 else 1.0
