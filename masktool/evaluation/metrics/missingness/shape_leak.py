"""Shape leak: whether the outline of what is missing tells the class.

An image without its object should leave the model guessing: the nearer its accuracy is to chance, the less the hole's
outline says. The same hole elsewhere, the object untouched, should leave the accuracy as it was.

Source: Sriram Balasubramanian and Soheil Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval, interval_of, interval_of_mean
from masktool.evaluation.findings import Chart, Findings, Line, Table
from masktool.explainers.mask_design import Masks

HALF_COUNT = 0.5
"""Half a pixel: overlaps are whole numbers, and the Fourier transform that counts them errs by far less than that."""
COLUMNS = ("mode", "object removed", "hole elsewhere", "|accuracy - chance|")


def move_shape(shape: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """Moves a shape, whole, to a random place in the image where it shares no pixel with where it was.

    Args:
        shape: pixels of the shape, (h, w) bool, at least one of them true.
        rng: random numbers for the choice among all such places, each as likely.

    Returns:
        The moved shape (h, w); None where there is no such place.
    """
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    cut = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    overlaps = np.fft.irfft2(np.fft.rfft2(shape) * np.fft.rfft2(cut, shape.shape).conj(), shape.shape)
    fits = tuple(slice(side - inner + 1) for side, inner in zip(shape.shape, cut.shape, strict=True))
    places = np.argwhere(overlaps[fits] < HALF_COUNT)  # (top, left) of the cut-out
    if len(places) == 0:
        return None
    top, left = places[rng.integers(len(places))]
    moved = np.zeros_like(shape)
    moved[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return moved


def leak_masks(shape: NDArray[np.bool_], rng: np.random.Generator) -> Masks:
    """Returns the mask without the object and, where there is room for one, the mask with the hole elsewhere.

    Args:
        shape: pixels of the object, (h, w) bool.
        rng: random numbers for the place.

    Returns:
        Masks (2, 1, h, w) float32, 1 = kept, or (1, 1, h, w) where there is no room.
    """
    moved = move_shape(shape, rng)
    holes = [shape] if moved is None else [shape, moved]
    return (~np.stack(holes)[:, None]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Leak:
    """Whether one mode predicts the class where the object, or the same shape elsewhere, is missing.

    Attributes:
        removed: whether the class of each image is predicted although the object is removed, (N,) 1 or 0; NaN where
            undefined.
        elsewhere: whether the class of each image is predicted with the hole elsewhere, (N,) 1 or 0; NaN where
            undefined.
    """

    removed: NDArray[np.float64]
    elsewhere: NDArray[np.float64]

    def figures(self, chance: float, seed: int) -> tuple[Interval, Interval, Interval]:
        """Returns the accuracies without the object and with the hole elsewhere, and the former's gap to chance."""
        defined = self.removed[~np.isnan(self.removed)]
        distance = interval_of(lambda weights: np.abs(weights @ defined - chance), len(defined), seed)
        return interval_of_mean(self.removed, seed), interval_of_mean(self.elsewhere, seed), distance


def summarise_leak(leaks: Mapping[str, Leak], chance: float, seed: int) -> Findings:
    """Returns the findings on the shape leak; none where it is defined for no image.

    Args:
        leaks: leak of each mode.
        chance: accuracy of guessing, 1 / number of classes of the data set.
        seed: seed of the resamples.
    """
    figures = {name: leak.figures(chance, seed) for name, leak in leaks.items()}
    first = next(iter(figures.values()))
    n_objects, n_moved = first[0].n, first[1].n
    if n_objects == 0:
        return Findings(())
    caption = (
        f"accuracy with only the object removed, and with the same hole elsewhere, {n_objects} images; "
        f"the nearer the former is to chance, {chance:.3f}, the less the hole's outline tells the class"
    )
    table = Table("shape-leak", caption, COLUMNS, tuple((name, *each) for name, each in figures.items()))
    lines = tuple(Line(name, each[:2]) for name, each in figures.items())
    title = f"Shape leak (chance: {chance:.3f})"
    chart = Chart("shape-leak", title, "what is missing", "accuracy", COLUMNS[1:3], lines, kind="bar")
    without = n_objects - n_moved
    note = f"{without} of {n_objects} objects leave no room for the hole elsewhere: it is undefined for them."
    return Findings((table,), (chart,), (note,) if without else ())
