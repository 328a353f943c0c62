"""LIME: hide random sets of segments, and fit a linear model that says what each segment contributes to the score.

Source: Marco Tulio Ribeiro, Sameer Singh and Carlos Guestrin, "'Why Should I Trust You?': Explaining the Predictions
of Any Classifier", KDD 2016, equations 1 and 2, https://arxiv.org/abs/1602.04938.

    a = argmin over w, b of  sum over i of  pi_i (f(z_i) - b - w . z_i)^2 + alpha |w|^2
    pi_i = sqrt(exp(-d_i^2 / kernel_width^2))
    d_i = cosine distance of z_i from all ones = 1 - sqrt(share of segments kept)

z_i says which segments are kept, each with probability p; the first z is all ones. The design does not depend on the
scores, so the fit is one constant matrix times the scores, whatever the number of targets.

p and the width are those of the lime package. Two things differ from it in how the same weights are estimated, so that
250 samples, at which a run that is left open ends at the latest, come nearer to what any number would tend to than its
1,000 do; ``sampling=independent``, ``alpha=1`` and ``n_samples=1000`` are the published way:

* ``sampling``: sets are spread evenly, and come in pairs of complements (:mod:`masktool.explainers.orthogonal_sets`);
  each of them is as likely as if its segments were drawn one by one (``independent``).
* ``alpha``: without it, the fit goes through the log-odds where these are nearer to a sum, with a penalty that the
  scores choose (:mod:`masktool.explainers.segment_regression`).

What is explained differs in three ways: segments are SLIC superpixels rather than quickshift's; hidden segments are
missing (mask 0) rather than painted with their mean colour; every segment is a feature, and none is selected
beforehand.

``quality`` reports the weighted R^2 of the weights, and the root mean square over the segments of their standard error:
the square root of the posterior variance, or with ``alpha`` from the residuals r without assuming equal variances: w =
A f has the variance sum over i of A_i^2 (r_i / (1 - h_i))^2, h_i the leverage of sample i, without which few samples
would look sure of themselves (MacKinnon and White, "Some Heteroskedasticity-Consistent Covariance Matrix Estimators
with Improved Finite Sample Properties", Journal of Econometrics 29, 1985, the estimator known as HC3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Rows
from masktool.explainers.method import Attribution, register
from masktool.explainers.orthogonal_sets import draw_orthogonal_sets
from masktool.explainers.segment_method import KeptSegments, SegmentMethod
from masktool.explainers.segment_regression import (
    FLAT_VARIANCE,
    SegmentRegression,
    choose_log_odds,
    count_free_sets,
    draw_free_sets,
    linear_part,
    prior_roots,
)
from masktool.explainers.segmentation import Segments
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import Task
from masktool.limits import check_limit
from masktool.option_checks import check_choice, check_count, check_real

Sampling = Literal["orthogonal", "independent"]
"""How samples are drawn."""
FEWEST = 2
"""Samples that a line needs."""
EVEN = 0.5
"""Probability at which as many segments are kept as are missing."""


@register
@dataclasses.dataclass(frozen=True)
class Lime(SegmentMethod):
    """Weight of each segment in a linear model of the score.

    Attributes:
        n_samples: the number of masks; None draws until the weights are stable.
        p: the probability that a segment is kept.
        kernel_width: the width of the kernel that weighs samples by cosine distance.
        sampling: how samples are drawn: ``orthogonal``, which needs p = .5, or ``independent``; None is the former
            where p allows it.
        alpha: the strength of the published ridge penalty; None lets the scores choose how they are fitted.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    meaning: ClassVar[str] = "contribution to {score}"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = "n_samples"
    most_samples: ClassVar[int] = 250
    any_rank: ClassVar[bool] = True

    n_samples: int | None = None
    p: float = 0.5
    kernel_width: float = 0.25
    sampling: Sampling | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples, minimum=FEWEST)
        check_real("p", self.p, above=0, below=1)
        check_real("kernel_width", self.kernel_width, above=0)
        check_choice("sampling", self.sampling, (None, "orthogonal", "independent"))
        if self.sampling == "orthogonal" and self.p != EVEN:
            raise MasktoolError(
                "orthogonal samples keep each segment in half of them",
                where="sampling=orthogonal",
                expected=f"p={EVEN}",
                got=f"p={self.p}",
                fix="set sampling=independent",
            )
        if self.alpha is not None:
            check_real("alpha", self.alpha, above=0)

    @property
    def settled_sampling(self) -> Sampling:
        """How samples are drawn."""
        return self.sampling or ("orthogonal" if self.p == EVEN else "independent")

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with no more segments than half as many as there are samples."""
        return self.with_segments_for(self.most_within(task.stopping), budget)

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the passes of the image as it is and of two samples, which a line needs."""
        return 1 + FEWEST

    def attribute(self, task: Task) -> Attribution:
        """Scores random sets of segments, and fits a linear model for every target at once."""
        segments = self.cut(task)
        n_features = int(segments.max()) + 1
        check_limit("segments", n_features, where=self.title)
        run = SampleRun(task.stopping, self.n_samples, self.most_within(task.stopping))
        design = self.design(run.most, n_features, task.seed)
        fit_to = self.fit_by_ridge if self.alpha is not None else self.fit_by_evidence(segments)

        def batches() -> Iterator[Rows]:
            for piece in run.pieces(task.perturbations_per_eval):
                yield {"kept": design[piece.start : piece.stop]}

        scores = np.zeros((0, len(task.targets)))
        for batch in task.evaluate(batches(), run.most, KeptSegments(segments)):
            scores = np.concatenate([scores, batch.scores])
            if run.pauses:
                fit = fit_to(design[: run.drawn], scores)
                run.judge(fit.coefficients, fit.variances)
        return Attribution(
            fit.coefficients[:, segments],
            self.settings(n_features, task) | {"n_samples": run.drawn, "sampling": self.settled_sampling},
            tuple({"r2": float(r2)} | figures for r2, figures in zip(fit.r2, run.quality(), strict=True)),
            segments,
            run.notes(),
        )

    def fit_by_evidence(self, segments: Segments) -> Callable[[NDArray[np.float32], NDArray[np.float64]], LinearFit]:
        """Returns the function that fits as the scores choose; what does not depend on samples is prepared here."""
        roots = prior_roots(segments)

        def fit(design: NDArray[np.float32], scores: NDArray[np.float64]) -> LinearFit:
            weights = kernel_weights(design, self.kernel_width)
            one_by_one = SegmentRegression(design, weights, np.arange(len(design)), roots[:1])
            regression = SegmentRegression(design, weights, self.pairs(len(design)), roots)
            free = draw_free_sets(count_free_sets(*design.shape), design.shape[1], self.p, self.kernel_width)
            found = [linear_part(regression, each, choose_log_odds(one_by_one, each), free) for each in scores.T]
            coefficients, variances = map(np.stack, zip(*found, strict=True))
            residuals = weighted_residuals(design, weights, coefficients.T, scores)
            return LinearFit(coefficients, variances, weighted_r2(weights, scores, residuals))

        return fit

    def fit_by_ridge(self, design: NDArray[np.float32], scores: NDArray[np.float64]) -> LinearFit:
        """Fits the published linear model for every target at once."""
        assert self.alpha is not None
        weights = kernel_weights(design, self.kernel_width)
        solution = ridge_matrix(design, weights, self.alpha)
        coefficients = solution @ scores
        residuals = weighted_residuals(design, weights, coefficients, scores)
        left_out = residuals / (1 - leverages(design, weights, solution)[:, None])  # off by, were it not in the fit
        return LinearFit(
            coefficients.T,
            (np.square(solution) @ np.square(left_out)).T,
            weighted_r2(weights, scores, residuals),
        )

    def design(self, count: int, n_features: int, seed: int) -> NDArray[np.float32]:
        """Returns which segments each sample keeps: (count, n_features) of 0 and 1, the first row all ones."""
        if self.settled_sampling == "independent":
            design = self.draw(count, n_features, seed).astype(np.float32)
            design[0] = 1
            return design
        drawn = draw_orthogonal_sets(count - 1, n_features, np.random.default_rng(seed))
        return np.concatenate([np.ones((1, n_features), np.float32), drawn.astype(np.float32)])

    def pairs(self, count: int) -> NDArray[np.int64]:
        """Returns the number of the pair of complements that each sample belongs to, (count,), or of its own."""
        numbers = np.arange(count)
        return numbers if self.settled_sampling == "independent" else (numbers + 1) // 2

    def draw(self, count: int, n_features: int, seed: int) -> NDArray[np.bool_]:
        """Returns independent choices (count, n_features); row by row, fewer features take the first of the same."""
        return np.random.default_rng(seed).random((count, n_features)) < self.p


class LinearFit(NamedTuple):
    """A linear model of each target's scores.

    Attributes:
        coefficients: the weight of each segment, (T, S).
        variances: the squared standard errors of the weights, (T, S).
        r2: the weighted R^2 of each target, (T,).
    """

    coefficients: NDArray[np.float64]
    variances: NDArray[np.float64]
    r2: NDArray[np.float64]


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


def weighted_r2(
    weights: NDArray[np.float64], scores: NDArray[np.float64], residuals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the weighted R^2 of each target, (T,), of its scores (n, T) and the residuals of a fit to them.

    Of scores that are one number R^2, a ratio of noises, counts as 0.
    """
    variance = np.average(np.square(scores - np.average(scores, axis=0, weights=weights)), axis=0, weights=weights)
    unexplained = np.average(np.square(residuals), axis=0, weights=weights)
    return np.where(variance > FLAT_VARIANCE, 1 - unexplained / np.maximum(variance, FLAT_VARIANCE), 0.0)
