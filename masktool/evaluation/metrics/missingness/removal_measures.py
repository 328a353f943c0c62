"""Measures of predictions on images with parts removed: class entropy, unchanged rate, R-OMS, accuracy, similarity.

Sources: as of :mod:`masktool.evaluation.parts.missingness`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.datasets.hierarchy import Hierarchy
from masktool.evaluation.bootstrap import Interval, as_float, interval_of_mean
from masktool.evaluation.metrics.missingness.class_entropy import entropy_intervals
from masktool.evaluation.metrics.missingness.reference_scope import mean_over_shares


@dataclasses.dataclass(frozen=True)
class Answers:
    """The predictions of one mode in one order of removal.

    Attributes:
        predicted: predicted classes (N, F), one column per fraction removed.
        unmasked: predicted classes (N,) with nothing removed.
        labels: true classes (N,); NaN where unknown.
        confidence: probabilities (N, F) of the class that is predicted with nothing removed.
        fractions: fractions (F,) of the segments removed.
    """

    predicted: NDArray[np.int64]
    unmasked: NDArray[np.int64]
    labels: NDArray[np.float64]
    confidence: NDArray[np.float64]
    fractions: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Figures:
    """A measure of one mode in one order: its mean over the fractions, as the measure takes it, and by fraction."""

    mean: Interval
    by_fraction: tuple[Interval, ...]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure; higher is better.

    Attributes:
        name: short name, for files and headings.
        title: title in charts.
        meaning: meaning of the measure, for captions.
        figures: function from answers and the seed of the resamples to figures.
        over: how the fractions are brought together, for captions.
    """

    name: str
    title: str
    meaning: str
    figures: Callable[[Answers, int], Figures]
    over: str = "mean over the fractions removed"


def sum_up_rates(rates: NDArray[np.float64], seed: int) -> Figures:
    """Returns the means over images of figures (N, F); rows of NaN do not count."""
    by_fraction = tuple(interval_of_mean(column, seed) for column in rates.T)
    return Figures(interval_of_mean(rates.mean(axis=1), seed), by_fraction)


def measure_entropy(answers: Answers, seed: int) -> Figures:
    """Returns the entropy of the predicted classes over the images, in nats."""
    return Figures(*entropy_intervals(answers.predicted, seed))


def measure_unchanged(answers: Answers, seed: int) -> Figures:
    """Returns the share of predictions that equal the image's prediction with nothing removed."""
    return sum_up_rates((answers.predicted == answers.unmasked[:, None]).astype(np.float64), seed)


def measure_reference_scope(answers: Answers, seed: int) -> Figures:
    """Returns the probability that is left of the prediction with nothing removed: R-OMS, in random order."""
    by_fraction = sum_up_rates(answers.confidence, seed).by_fraction
    return Figures(interval_of_mean(mean_over_shares(answers.confidence, answers.fractions), seed), by_fraction)


def measure_accuracy(answers: Answers, seed: int) -> Figures:
    """Returns the share of predictions that are right, over the images whose class is known."""
    labels = answers.labels[:, None]
    return sum_up_rates(np.where(np.isnan(labels), np.nan, answers.predicted == labels), seed)


def measure_similarity(answers: Answers, seed: int, hierarchy: Hierarchy) -> Figures:
    """Returns how alike the predicted classes and those with nothing removed are, in a hierarchy of classes.

    Each fraction counts the images whose similarity is known there; their mean, those where it is known at every one.
    """
    pairs = np.stack(np.broadcast_arrays(answers.predicted, answers.unmasked[:, None]), axis=-1)
    distinct, positions = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    alike = np.array([as_float(hierarchy.similarity(int(a), int(b))) for a, b in distinct])
    return sum_up_rates(alike[positions.reshape(answers.predicted.shape)], seed)


ENTROPY = Measure("class-entropy", "Class entropy", "entropy of the predicted classes, in nats", measure_entropy)
UNCHANGED = Measure(
    "unchanged", "Unchanged predictions", "share of predictions as with nothing removed", measure_unchanged
)
REFERENCE_SCOPE = Measure(
    "r-oms",
    "Probability of the whole image's class",
    "probability of the class that is predicted with nothing removed, which in random order is R-OMS",
    measure_reference_scope,
    "area over the fractions removed",
)
ACCURACY = Measure("accuracy", "Accuracy", "share of predictions that are right", measure_accuracy)


def similarity_to(hierarchy: Hierarchy) -> Measure:
    """Returns the measure of class similarity in a hierarchy."""
    return Measure(
        "class-similarity",
        "Class similarity",
        "similarity of the predicted class to that with nothing removed, in the hierarchy of classes",
        lambda answers, seed: measure_similarity(answers, seed, hierarchy),
    )
