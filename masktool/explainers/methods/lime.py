"""LIME: hide random sets of segments, and fit a linear model that says what each segment contributes to the score.

Source: Marco Tulio Ribeiro, Sameer Singh and Carlos Guestrin, "'Why Should I Trust You?': Explaining the Predictions
of Any Classifier", KDD 2016, equations 1 and 2, https://arxiv.org/abs/1602.04938.

    a = argmin over w, b of  sum over i of  pi_i (f(z_i) - b - w . z_i)^2 + alpha |w|^2
    pi_i = sqrt(exp(-d_i^2 / kernel_width^2))
    d_i = cosine distance of z_i from all ones = 1 - sqrt(share of segments kept)

z_i says which segments are kept, each with probability p; the first z is all ones. The design does not depend on the
scores, so the fit is one constant matrix times the scores, whatever the number of targets.

The defaults are those of the lime package: 1,000 samples, p = .5, width .25, ridge with alpha = 1 and an intercept. It
differs in three ways: segments are SLIC superpixels rather than quickshift's; hidden segments are missing (mask 0)
rather than painted with their mean colour; every segment is a feature, and none is selected beforehand.

``quality`` reports the weighted R^2 of the fit, and the root mean square over the segments of the standard error of
their weights. The latter comes from the residuals r without assuming equal variances: w = A f has the variance sum over
i of A_i^2 (r_i / (1 - h_i))^2, h_i the leverage of sample i, without which few samples would look sure of themselves
(MacKinnon and White, "Some Heteroskedasticity-Consistent Covariance Matrix Estimators with Improved Finite Sample
Properties", Journal of Econometrics 29, 1985, the estimator known as HC3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.mask_design import Rows
from masktool.explainers.method import Attribution, register
from masktool.explainers.segment_method import KeptSegments, SegmentMethod
from masktool.explainers.task import Task
from masktool.limits import check_limit
from masktool.option_checks import check_count, check_real

FLAT_VARIANCE = 1e-12
"""Variance below which the scores are one number up to float32's rounding: R^2, a ratio of noises, counts as 0."""


@register
@dataclasses.dataclass(frozen=True)
class Lime(SegmentMethod):
    """Weight of each segment in a linear model of the score.

    Attributes:
        n_samples: the number of masks.
        p: the probability that a segment is kept.
        kernel_width: the width of the kernel that weighs samples by cosine distance.
        alpha: the strength of the ridge penalty.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    meaning: ClassVar[str] = "contribution to {score}"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = "n_samples"

    n_samples: int = 1000
    p: float = 0.5
    kernel_width: float = 0.25
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_samples", self.n_samples, minimum=2)  # a line needs two points
        check_real("p", self.p, above=0, below=1)
        check_real("kernel_width", self.kernel_width, above=0)
        check_real("alpha", self.alpha, above=0)

    def attribute(self, task: Task) -> Attribution:
        """Scores random sets of segments, and fits a linear model for every target at once."""
        segments = self.cut(task)
        n_features = int(segments.max()) + 1
        check_limit("segments", n_features, where=self.title)
        design = self.design(n_features, task.seed)

        def batches() -> Iterator[Rows]:
            for piece in task.batch_ranges(len(design)):
                yield {"kept": design[piece.start : piece.stop]}

        scored = task.evaluate(batches(), len(design), KeptSegments(segments))
        scores = np.concatenate([batch.scores for batch in scored])
        weights = kernel_weights(design, self.kernel_width)
        solution = ridge_matrix(design, weights, self.alpha)
        coefficients = solution @ scores  # (features, targets)
        residuals = weighted_residuals(design, weights, coefficients, scores)
        quality = fit_quality(solution, weights, scores, residuals, leverages(design, weights, solution))
        return Attribution(coefficients.T[:, segments], self.settings(n_features), quality, segments)

    def design(self, n_features: int, seed: int) -> NDArray[np.float32]:
        """Returns which segments each sample keeps: (n_samples, n_features) of 0 and 1, the first row all ones."""
        design = self.draw(n_features, seed).astype(np.float32)
        design[0] = 1
        return design

    def draw(self, n_features: int, seed: int) -> NDArray[np.bool_]:
        """Returns the random choices (n_samples, n_features); row by row, fewer features take the first of the same."""
        return np.random.default_rng(seed).random((self.n_samples, n_features)) < self.p


def kernel_weights(design: NDArray[np.float32], kernel_width: float) -> NDArray[np.float64]:
    """Returns the weight (n,) of each sample by its cosine distance from the sample that keeps everything."""
    distances = 1 - np.sqrt(design.mean(axis=1, dtype=np.float64))
    return np.sqrt(np.exp(-np.square(distances / kernel_width)))


def ridge_matrix(design: NDArray[np.float32], weights: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Returns the matrix A (features, n) for which A @ scores are the weighted ridge regression's coefficients.

    With the columns of the design Z centred at their weighted means, the intercept drops out of the normal equations:
    A = (Z' W Z + alpha I)^-1 Z' W.
    """
    return np.asarray(np.linalg.solve(*normal_equations(design, weights, alpha)), np.float64)


def normal_equations(
    design: NDArray[np.float32], weights: NDArray[np.float64], alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns Z' W Z + alpha I and Z' W, see :func:`ridge_matrix`."""
    centred = design - (weights @ design) / weights.sum()
    weighted = centred.T * weights
    return weighted @ centred + alpha * np.eye(design.shape[1]), weighted


def weighted_residuals(
    design: NDArray[np.float32],
    weights: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the residuals (n, T) of the linear model, the intercept at its optimum."""
    gaps = scores - design @ coefficients
    return gaps - np.average(gaps, axis=0, weights=weights)


def leverages(
    design: NDArray[np.float32], weights: NDArray[np.float64], solution: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns how much each sample's own score decides its fitted value (n,), below 1 thanks to the ridge penalty."""
    shares = weights / weights.sum()
    centred = design - shares @ design
    return np.einsum("nf,fn->n", centred, solution) + shares


def fit_quality(
    solution: NDArray[np.float64],
    weights: NDArray[np.float64],
    scores: NDArray[np.float64],
    residuals: NDArray[np.float64],
    leverage: NDArray[np.float64],
) -> tuple[dict[str, float], ...]:
    """Returns, for each target, the weighted R^2 and the weights' standard error beside their range."""
    variance = np.average(np.square(scores - np.average(scores, axis=0, weights=weights)), axis=0, weights=weights)
    unexplained = np.average(np.square(residuals), axis=0, weights=weights)
    r2 = np.where(variance > FLAT_VARIANCE, 1 - unexplained / np.maximum(variance, FLAT_VARIANCE), 0.0)
    left_out = residuals / (1 - leverage[:, None])  # what each sample is off by when the fit does not know it
    errors = np.sqrt((np.square(solution) @ np.square(left_out)).mean(axis=0))
    ranges = np.ptp(solution @ scores, axis=0)
    return tuple(
        {"r2": float(fit), "attributions_error": float(error), "attributions_range": float(span)}
        for fit, error, span in zip(r2, errors, ranges, strict=True)
    )
