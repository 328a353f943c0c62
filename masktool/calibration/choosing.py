"""Chooses the form of a correction by images that it was not fitted on, and says what such images gain.

1. The attempts are: the scores as they are; a scale; a diagonal and, where classes and images allow, a full matrix,
   each under several penalties.
2. Images are cut into folds, never masks: two masks of one image tell nearly the same. Each attempt is fitted without
   a fold and held_out on that fold; the one of the smallest mean divergence is chosen, of equal ones the simplest.
3. What is gained is measured around that choice: for each of the outer folds, choice and fit are made anew without its
   images. So no figure of an image knows that image, and every image has figures.
4. The correction that is kept has the form that all images choose, fitted on all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from masktool.calibration.fitting import Attempt, ScoresBehindMasks, fit_correction
from masktool.correction import Correction, Floats, Space, divergence, keeps_decision

PENALTIES = (0.3, 0.1, 0.03, 0.01)
"""From the strongest. On CIFAR's ResNet-56 the first is best for 20 images, the last for 170; .001 never was."""
MOST_FULL = 100
"""Classes up to which A may be a full matrix, of 10,000 numbers then."""
FOLDS_OF_CHOICE = 3
"""Folds by which a form is chosen."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The correction that was chosen, and by what.

    Attributes:
        attempt: the attempt.
        correction: the attempt fitted on all images; None where scores are best left as they are.
    """

    attempt: Attempt
    correction: Correction | None


@dataclasses.dataclass(frozen=True)
class HeldOutFigures:
    """Figures of images before and after a correction that was fitted without them, one each, (N,).

    Attributes:
        divergence_before: mean over the masks of the divergence in nats from the prediction with nothing missing.
        divergence_after: the same of the corrected scores.
        unchanged_before: share of the masks behind which the prediction stays.
        unchanged_after: the same of the corrected scores.
    """

    divergence_before: Floats
    divergence_after: Floats
    unchanged_before: Floats
    unchanged_after: Floats


def list_attempts(n_images: int, n_masks: int, n_classes: int, space: Space) -> Iterator[Attempt]:
    """Yields the attempts, the simplest first, that so many images under so many masks each may tell apart.

    A full matrix has a row for each class: there have to be twice as many images as classes, and more masked images
    than numbers in the matrix. Of independent classes, whose space is log-odds, none tells of another.
    """
    yield Attempt(None)
    yield Attempt("scale")
    yield from (Attempt("diagonal", penalty) for penalty in PENALTIES)
    enough = n_images >= 2 * n_classes and n_images * n_masks >= n_classes * (n_classes + 1)
    if space != "log-odds" and n_classes <= MOST_FULL and enough:
        yield from (Attempt("full", penalty) for penalty in PENALTIES)


def choose_correction(scores: ScoresBehindMasks, seed: int = 0) -> Choice:
    """Returns the attempt that is best on held-out images, fitted on all of them.

    Args:
        scores: scores of at least as many images as there are folds of the choice.
        seed: seed of the folds.
    """
    attempts = tuple(list_attempts(scores.n_images, scores.masked.shape[1], scores.n_classes, scores.space))
    losses = np.zeros(len(attempts))
    for held in cut_folds(scores.n_images, FOLDS_OF_CHOICE, seed):
        rest, out = without(scores, held), scores.of(held)
        losses += [np.sum(measure_gain(out, fit_correction(rest, each)).divergence_after) for each in attempts]
    best = attempts[int(np.argmin(losses))]
    return Choice(best, fit_correction(scores, best))


def measure_gain(scores: ScoresBehindMasks, correction: Correction | None) -> HeldOutFigures:
    """Returns the figures of images before and after a correction; None corrects nothing."""
    whole = scores.whole[:, None]
    after = scores.masked if correction is None else correction.apply(scores.masked)
    return HeldOutFigures(
        *(divergence(whole, values, scores.space).mean(axis=1) for values in (scores.masked, after)),
        *(keeps_decision(whole, values, scores.space).mean(axis=1) for values in (scores.masked, after)),
    )


def cross_validate(scores: ScoresBehindMasks, n_folds: int, seed: int = 0) -> HeldOutFigures:
    """Returns the figures of every image, by corrections that were chosen and fitted without it.

    Args:
        scores: scores of at least as many images as there are folds.
        n_folds: number of folds.
        seed: seed of the folds.
    """
    found = measure_gain(scores, None)
    for held in cut_folds(scores.n_images, n_folds, seed):
        chosen = choose_correction(without(scores, held), seed)
        held_out = measure_gain(scores.of(held), chosen.correction)
        found.divergence_after[held] = held_out.divergence_after
        found.unchanged_after[held] = held_out.unchanged_after
    return found


def without(scores: ScoresBehindMasks, held: NDArray[np.intp]) -> ScoresBehindMasks:
    """Returns the scores of all images but some."""
    return scores.of(np.setdiff1d(np.arange(scores.n_images), held))


def cut_folds(n_images: int, n_folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Returns the indices of the images in each fold, of sizes that differ by one at most."""
    shuffled = np.random.default_rng([seed, n_images]).permutation(n_images)
    return [np.sort(fold) for fold in np.array_split(shuffled, n_folds)]
