"""Fits one correction to scores behind masks, by the divergence from what was predicted with nothing missing.

With p the prediction for an image with nothing missing and v the scores of the same image behind a mask, the mean over
all images and masks of KL(p || q), q = softmax(A v + b) or sigmoids, is smallest. Both q's logarithm and the penalty
make that convex in A and b, so that there is one optimum and no start or random choice matters:

    mean KL(p || q) + penalty / 2 · (r² ||D||² + ||b||²),  A = s I + D

r is the root mean square of the scores (around each row's mean, where a softmax forgets that mean): the penalty counts
how far the correction moves scores, by D as by b. The scale s has no penalty: with D and b held at 0 it is the simplest
correction, how sure a network is behind masks is what is off first, and one number is well known from few images.

Source: "MCal", https://arxiv.org/abs/2603.04831; the optimiser is L-BFGS-B of scipy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from masktool.correction import Correction, Floats, Form, Space, log_shares

MOST_STEPS = 500
"""Steps of the optimiser; fits of 10 to 1,000 classes took 10 to 120."""
GRADIENT_TOLERANCE = 1e-6
"""Nats per unit of a score: where no entry of the gradient is larger, the optimum is found."""
SMALLEST_SCALE = 1e-6
"""Least size of scores that A is measured in: scores that are all alike say nothing of A."""


@dataclasses.dataclass(frozen=True)
class ScoresBehindMasks:
    """What a network says of the classes of some images, with nothing missing and behind masks.

    Attributes:
        whole: scores with nothing missing, (N, K), in ``space``.
        masked: scores behind M masks of each image, (N, M, K).
        space: what the scores are.
    """

    whole: Floats
    masked: Floats
    space: Space

    def of(self, images: np.ndarray) -> ScoresBehindMasks:
        """Returns the scores of some of the images, by their indices."""
        return ScoresBehindMasks(self.whole[images], self.masked[images], self.space)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.whole)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.whole.shape[1]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A way to correct scores, of several that are tried.

    Attributes:
        form: what A is; None leaves the scores as they are.
        penalty: weight of the penalty.
    """

    form: Form | None
    penalty: float = 0.0


def fit_correction(scores: ScoresBehindMasks, attempt: Attempt) -> Correction | None:
    """Returns the correction that fits scores best; None for the attempt that leaves them as they are.

    Args:
        scores: the scores to fit.
        attempt: what A is, and the weight of the penalty.
    """
    from scipy.optimize import minimize

    if attempt.form is None:
        return None
    values = scores.masked.reshape(-1, scores.n_classes)
    shares = np.exp(log_shares(scores.whole, scores.space))
    targets = np.repeat(shares, scores.masked.shape[1], axis=0)
    size = size_of_scores(values, scores.space)
    rows = {"scale": 0, "diagonal": 2, "full": scores.n_classes + 1}[attempt.form]
    found = minimize(
        loss_of(values, targets, size, attempt, scores.space),
        np.zeros(1 + rows * scores.n_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MOST_STEPS, "gtol": GRADIENT_TOLERANCE},
    )
    return take_parameters(found.x, size, attempt.form, scores.space, scores.n_classes)


def size_of_scores(values: Floats, space: Space) -> float:
    """Returns the root mean square of scores (R, K), around each row's mean where a softmax is taken of them."""
    centred = values if space == "log-odds" else values - values.mean(axis=1, keepdims=True)
    return max(float(np.sqrt(np.mean(centred**2))), SMALLEST_SCALE)


def take_parameters(parameters: Floats, size: float, form: Form, space: Space, n_classes: int) -> Correction:
    """Returns the correction of the optimiser's parameters: (s − 1), D and b, laid out flat, the first two times size.

    Args:
        parameters: the parameters; of a scale (s − 1) · size alone.
        size: unit of the scores.
        form: what A is.
        space: what the scores are.
        n_classes: number of classes.
    """
    scale, rows = 1 + parameters[0] / size, parameters[1:].reshape(-1, n_classes)
    if form == "scale":
        return Correction(form, space, np.array(scale), np.zeros(n_classes))
    weight = scale + rows[0] / size if form == "diagonal" else scale * np.eye(n_classes) + rows[:-1] / size
    return Correction(form, space, weight, rows[-1])


def loss_of(
    values: Floats, targets: Floats, size: float, attempt: Attempt, space: Space
) -> Callable[[Floats], tuple[float, Floats]]:
    """Returns the function to minimise: of the parameters, the loss (but for a constant) and its gradient.

    Args:
        values: scores behind masks, (R, K).
        targets: probabilities with nothing missing, (R, K).
        size: unit of the scores.
        attempt: what A is, and the weight of the penalty.
        space: what the scores are.
    """
    n_rows, n_classes = values.shape
    form = attempt.form
    assert form is not None

    def loss(parameters: Floats) -> tuple[float, Floats]:
        correction = take_parameters(parameters, size, form, space, n_classes)
        logs = log_shares(corrected := correction.apply(values), space)
        cost = -np.sum(targets * logs)
        if space == "log-odds":
            cost -= np.sum((1 - targets) * log_shares(-corrected, space))
        residuals = (np.exp(logs) - targets) / n_rows
        slope = [np.sum(residuals * values, keepdims=True).reshape(-1) / size]
        if form == "diagonal":
            slope += [np.sum(residuals * values, axis=0) / size, residuals.sum(axis=0)]
        elif form == "full":
            slope += [(residuals.T @ values).reshape(-1) / size, residuals.sum(axis=0)]
        held = np.concatenate([[0.0], attempt.penalty * parameters[1:]])
        return float(cost) / n_rows + 0.5 * float(held @ parameters), np.concatenate(slope) + held

    return loss
