"""Occlusion: slide a window over the image, hide what is under it, and see how far the score drops.

Source: Matthew D. Zeiler and Rob Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section
4.2, https://arxiv.org/abs/1311.2901.

    a(x) = mean over the windows W that cover pixel x of  f(1) - f(1 - 1_W)

f(m) is the target's score under mask m. The paper paints a grey square and plots the score at the window's centre; here
the window is missing (mask 0), and the drop is averaged over all windows that cover a pixel, as Captum does.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Masks, Rows, WindowDesign
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.task import Task
from masktool.option_checks import check_count

WINDOWS_PER_SIDE = 7
"""Default window: a seventh of the input, 32 of 224 pixels."""

MOST_PER_SIDE = 27
"""Most windows along a side for a budget of passes: then they are a fourteenth of it, 16 of 224 pixels. Smaller ones
hide so little that hardly any score changes."""

Pair = tuple[int, int]


@register
@dataclasses.dataclass(frozen=True)
class Occlusion(Method):
    """Drop in the target's score when a window is missing.

    Attributes:
        sliding_window_shapes: (height, width) of the window in pixels of the model's input, or one number for both;
            None takes a seventh of the input.
        strides: (vertical, horizontal) step of the window in pixels, or one number for both; None takes half the
            window. The last window of a row or column is flush with the border, so that every pixel is covered.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    meaning: ClassVar[str] = "drop in {score} when hidden"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None

    sliding_window_shapes: int | Sequence[int] | None = None
    strides: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.sliding_window_shapes is not None:
            check_pair("sliding_window_shapes", self.sliding_window_shapes)
        if self.strides is not None:
            check_pair("strides", self.strides)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with the smallest windows that the budget reaches for, half a window apart."""
        if not self.leaves_open("sliding_window_shapes") or not self.leaves_open("strides"):
            return self
        return dataclasses.replace(self, **windows_within(budget - 1, task.size)._asdict())

    def count_passes(self, task: Task) -> int:
        """Returns the passes of the image as it is, and of every window."""
        return 1 + len(window_corners(task.size, *self.resolve(task.size)))

    def attribute(self, task: Task) -> Attribution:
        """Averages, for every pixel, the drops of the windows that cover it."""
        window, strides = self.resolve(task.size)
        corners = window_corners(task.size, window, strides)
        maps = mean_over_windows(task.size, window, corners, measure_drops(task, window, corners))
        settings = {"sliding_window_shapes": list(window), "strides": list(strides), "n_windows": len(corners)}
        return Attribution(maps, settings, quality=({},) * len(task.base))

    def resolve(self, size: Pair) -> tuple[Pair, Pair]:
        """Returns the window and the strides, (vertical, horizontal) in pixels each, for an input of ``size``.

        Raises:
            MasktoolError: the window does not fit into the input, or the strides would leave pixels uncovered.
        """
        window = (
            (max(1, round(size[0] / WINDOWS_PER_SIDE)), max(1, round(size[1] / WINDOWS_PER_SIDE)))
            if self.sliding_window_shapes is None
            else check_pair("sliding_window_shapes", self.sliding_window_shapes)
        )
        strides = (
            (max(1, window[0] // 2), max(1, window[1] // 2))
            if self.strides is None
            else check_pair("strides", self.strides)
        )
        check_fits("sliding_window_shapes", window, "the model's input", size)
        check_fits("strides", strides, "the window", window)
        return window, strides


class ChosenWindows(NamedTuple):
    """Windows and their steps, (vertical, horizontal) in pixels each."""

    sliding_window_shapes: Pair
    strides: Pair


def windows_within(count: int, size: Pair) -> ChosenWindows:
    """Returns the smallest windows, half a window apart, of which at most ``count`` cover an input of ``size``."""
    for per_side in range(min(MOST_PER_SIDE, math.isqrt(count)), 1, -1):
        window = tuple(max(1, round(2 * length / (per_side + 1))) for length in size)
        chosen = ChosenWindows((window[0], window[1]), (max(1, window[0] // 2), max(1, window[1] // 2)))
        if len(window_corners(size, *chosen)) <= count:
            return chosen
    return ChosenWindows(size, size)


def check_pair(name: str, value: int | Sequence[int]) -> Pair:
    """Returns an option as (vertical, horizontal), or raises a MasktoolError that names the option."""
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
    if len(pair) != 2:
        raise MasktoolError("option out of range", where=name, expected="one number or two", got=repr(value))
    return check_count(name, pair[0]), check_count(name, pair[1])


def check_fits(name: str, pair: Pair, limit_name: str, limit: Pair) -> None:
    """Raises a MasktoolError where a pair exceeds its limit on either axis."""
    if pair[0] > limit[0] or pair[1] > limit[1]:
        raise MasktoolError(
            "option out of range",
            where=name,
            expected=f"at most {limit[0]} x {limit[1]}, {limit_name}",
            got=f"{pair[0]} x {pair[1]}",
        )


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Returns the positions at which windows start along one axis, the last window flush with the end."""
    starts = list(range(0, length - window + 1, stride))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def window_corners(size: Pair, window: Pair, strides: Pair) -> list[Pair]:
    """Returns (top, left) of every window, row by row."""
    rows, columns = (window_starts(*along) for along in zip(size, window, strides, strict=True))
    return list(itertools.product(rows, columns))


def measure_drops(task: Task, window: Pair, corners: Sequence[Pair]) -> NDArray[np.float64]:
    """Returns how far the score of each target drops without each window, (n, T)."""

    def batches() -> Iterator[Rows]:
        for piece in task.batch_ranges(len(corners)):
            yield rows_of_corners(corners[piece.start : piece.stop])

    scored = task.evaluate(batches(), len(corners), MissingWindows(task.size, window))
    return np.concatenate([task.base - batch.scores for batch in scored])


def mean_over_windows(
    size: Pair, window: Pair, corners: Sequence[Pair], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the mean of the values (n, T) of the windows that cover a pixel, (T, h, w)."""
    totals = np.zeros((values.shape[1], *size))
    counts = np.zeros(size)
    for (top, left), value in zip(corners, values, strict=True):
        covered = np.s_[top : top + window[0], left : left + window[1]]
        totals[:, *covered] += value[:, None, None]
        counts[covered] += 1
    return totals / counts


def window_masks(size: Pair, window: Pair, corners: Iterable[Pair]) -> Masks:
    """Returns one mask (1, h, w) per corner: 0 inside the window, 1 elsewhere."""
    places = list(corners)
    masks = np.ones((len(places), 1, *size), np.float32)
    for mask, (top, left) in zip(masks, places, strict=True):
        mask[:, top : top + window[0], left : left + window[1]] = 0
    return masks


@dataclasses.dataclass(frozen=True)
class MissingWindows(WindowDesign):
    """Masks with one missing window each; a row is where it starts: ``top`` and ``left`` (M,) float32, in pixels.

    Attributes:
        size: (height, width) of the masks in pixels.
        window: (height, width) of the windows in pixels.
    """

    size: Pair
    window: Pair

    def corners(self, rows: Rows) -> NDArray[np.int64]:
        """Returns (top, left) of the windows of a batch of rows, (M, 2)."""
        return np.stack([rows["top"], rows["left"]], axis=1).astype(np.int64)

    def expand_corners(self, corners: NDArray[np.int64]) -> Masks:
        """Returns the masks whose windows start at corners (M, 2)."""
        return window_masks(self.size, self.window, corners.tolist())


def rows_of_corners(corners: Sequence[Pair]) -> Rows:
    """Returns the rows of :class:`MissingWindows` whose windows start at (top, left)."""
    top, left = np.array(corners, np.float32).T.copy()
    return {"top": top, "left": left}
