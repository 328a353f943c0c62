"""Coarse-to-fine occlusion: hide big windows first, and small ones only where the big ones mattered.

Source: Jessica Cooper, Ognjen Arandjelovic and David J. Harrison, "Believe the HiPe: Hierarchical Perturbation for
Fast, Robust, and Model-Agnostic Saliency Mapping", Pattern Recognition 129, 2022, https://arxiv.org/abs/2103.05108;
the map is that of occlusion (Zeiler and Fergus, ECCV 2014).

    a(x) = mean over the small windows W that cover pixel x of  d(W)
    d(W) = f(1) - f(1 - 1_W)                                                  where W is hidden
    d(W) = r (mean drop of the big windows over W) * |W| / |big window|       elsewhere

f(m) is the target's score under mask m. All big windows are hidden, then small ones in the order of the mean absolute
drop of the big windows over them, as many as ``most_masks`` leaves room for. Where all are hidden the map is that of
occlusion with the small window. Elsewhere a big window's drop is divided evenly over its area, which is an estimate:
two places that oppose each other inside one big window may go unseen. r says how much smaller the drops of small
windows are than such estimates, by least squares over those that were hidden: a score withstands the loss of a part
better than its share of the whole would have it, and without r what mattered less would stand above what mattered
most. The paper goes on from big to small in many levels; here there are two, and a number of passes that is known
beforehand.

``quality`` reports the share of the small windows that were hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.methods.occlusion import (
    Occlusion,
    check_lengths,
    mean_over_windows,
    measure_drops,
    window_corners,
    windows_within,
)
from masktool.explainers.task import Task
from masktool.option_checks import check_count

MOST_MASKS = 248
"""Masks of an explanation whose budget is not said."""


@register
@dataclasses.dataclass(frozen=True)
class CoarseToFine(Method):
    """Drop in the target's score when a small window is missing, where big ones matter.

    Attributes:
        sliding_window_shapes: (height, width) of the small window in pixels of the model's input, or one number for
            both; None takes the windows that occlusion has for a budget of twice as many masks, a fifth of the input or
            larger, of which about half can be hidden.
        strides: (vertical, horizontal) step of the small window in pixels, or one number for both; None takes half of a
            window that is given, else the steps that go with it.
        enlargement: how many times as high and as wide the big windows are; they step by half of that.
        most_masks: the largest number of masks for a target; None hides every small window.
    """

    name: ClassVar[str] = "coarse-to-fine"
    title: ClassVar[str] = "Coarse-to-fine occlusion"
    meaning: ClassVar[str] = "drop in {score} when hidden"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None

    sliding_window_shapes: int | Sequence[int] | None = None
    strides: int | Sequence[int] | None = None
    enlargement: int = 2
    most_masks: int | None = MOST_MASKS

    def __post_init__(self) -> None:
        if self.sliding_window_shapes is not None:
            check_lengths("sliding_window_shapes", self.sliding_window_shapes)
        if self.strides is not None:
            check_lengths("strides", self.strides)
        check_count("enlargement", self.enlargement, minimum=2)
        if self.most_masks is not None:
            check_count("most_masks", self.most_masks)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with windows, and as many of them for each target, as the budget has room for."""
        most = budget - 1 if self.leaves_open("most_masks") or self.most_masks is None else self.most_masks
        n_targets = len(task.targets)
        share = dataclasses.replace(self, most_masks=max(1, min(most, (budget - 1) // n_targets)))
        window, strides = share.resolve(task.size)
        n_big = len(self.big_windows(task.size, window)[1])
        most = max(1, min(most, n_big + (budget - 1 - n_big) // n_targets))
        return dataclasses.replace(self, sliding_window_shapes=window, strides=strides, most_masks=most)

    def count_passes(self, task: Task) -> int:
        """Returns the most passes: of the image as it is, of the big windows, and of small ones for every target."""
        window, strides = self.resolve(task.size)
        n_big = len(self.big_windows(task.size, window)[1])
        n_small = len(window_corners(task.size, window, strides))
        if self.most_masks is not None:
            n_small = min(n_small, len(task.targets) * max(0, self.most_masks - n_big))
        return 1 + n_big + n_small

    def attribute(self, task: Task) -> Attribution:
        """Hides the big windows, then the small ones that are worth it for any target."""
        window, strides = self.resolve(task.size)
        corners = window_corners(task.size, window, strides)
        big, big_corners = self.big_windows(task.size, window)
        drops = measure_drops(task, big, big_corners)
        estimates = means_inside(corners, window, mean_over_windows(task.size, big, big_corners, drops))
        estimates *= np.prod(window) / np.prod(big)
        worth = means_inside(corners, window, mean_over_windows(task.size, big, big_corners, np.abs(drops)))
        chosen = most_worth(worth, self.room_for_small(len(big_corners), len(corners)))
        hidden = np.flatnonzero(chosen.any(axis=1))
        values = estimates
        if len(hidden):
            found = measure_drops(task, window, [corners[place] for place in hidden])
            values = estimates * ratio_of_drops(found, estimates[hidden], chosen[hidden])
            values[hidden] = np.where(chosen[hidden], found, values[hidden])
        share = float(chosen[:, 0].mean())
        settings = {
            "sliding_window_shapes": list(window),
            "strides": list(strides),
            "enlargement": self.enlargement,
            "most_masks": self.most_masks,
            "n_windows": len(corners),
        }
        return Attribution(
            mean_over_windows(task.size, window, corners, values),
            settings,
            quality=({"windows_hidden": share},) * len(task.base),
            notes=() if share == 1 else ((describe_rest(share),),) * len(task.base),
        )

    def resolve(self, size: Size) -> tuple[Size, Size]:
        """Returns the small window and its strides, (vertical, horizontal) in pixels each, for an input of ``size``.

        Raises:
            MasktoolError: the window does not fit into the input, or the strides would leave pixels uncovered.
        """
        if self.sliding_window_shapes is not None:
            return Occlusion(self.sliding_window_shapes, self.strides).resolve(size)
        chosen = windows_within(2 * (self.most_masks or MOST_MASKS), size)
        return Occlusion(chosen.sliding_window_shapes, self.strides or chosen.strides).resolve(size)

    def big_windows(self, size: Size, window: Size) -> tuple[Size, list[Size]]:
        """Returns the big window, and (top, left) of each."""
        height, width = (min(length, each * self.enlargement) for length, each in zip(size, window, strict=True))
        big = height, width
        return big, window_corners(size, big, (max(1, height // 2), max(1, width // 2)))

    def room_for_small(self, n_big: int, n_small: int) -> int:
        """Returns how many small windows are hidden.

        Raises:
            MasktoolError: there is not even room for the big ones.
        """
        if self.most_masks is None:
            return n_small
        if self.most_masks < n_big:
            expected = f"at least {n_big}, the big windows"
            raise MasktoolError("option out of range", where="most_masks", expected=expected, got=self.most_masks)
        return min(n_small, self.most_masks - n_big)


def means_inside(corners: Sequence[Size], window: Size, maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of each map (T, h, w) over each window, (n, T)."""
    sums = np.zeros((len(maps), maps.shape[1] + 1, maps.shape[2] + 1))
    sums[:, 1:, 1:] = maps.cumsum(axis=1).cumsum(axis=2)
    top, left = np.array(corners).T
    bottom, right = top + window[0], left + window[1]
    inside = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
    return np.asarray(inside.T / np.prod(window))


def most_worth(worth: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Returns for each target the windows with the highest worth (n, T), the first of equal ones."""
    order = np.argsort(-worth, axis=0, kind="stable")[:count]
    chosen = np.zeros(worth.shape, bool)
    np.put_along_axis(chosen, order, values=True, axis=0)
    return chosen


def ratio_of_drops(
    found: NDArray[np.float64], estimates: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns for each of T targets how many times as large measured drops are as those that were estimated, (T,).

    By least squares over the windows chosen for the target, and at least 0: a drop is not turned into a rise. Where
    nothing was estimated, there is nothing to scale, and the ratio is 1.

    Args:
        found: measured drops, (n, T).
        estimates: of the same windows, (n, T).
        chosen: which of the windows count for which target, (n, T).
    """
    products = (found * estimates * chosen).sum(axis=0)
    squares = (np.square(estimates) * chosen).sum(axis=0)
    return np.maximum(np.divide(products, squares, out=np.ones_like(squares), where=squares > 0), 0)


def describe_rest(share: float) -> str:
    """Returns the note that says what stands where no small window was hidden."""
    return (
        f"{1 - share:.0%} of the small windows were not hidden, for the big ones over them mattered less: there the "
        "map has their drops, divided evenly and scaled like those that were measured"
    )
