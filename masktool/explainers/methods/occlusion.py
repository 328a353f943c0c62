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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Masks, Rows, WindowDesign, whole_root
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.task import Task
from masktool.layouts import show_size
from masktool.option_checks import check_count

WINDOWS_PER_SIDE: Mapping[int, int] = {1: 24, 2: 7, 3: 4}
"""Default window: a seventh of the input, 32 of 224 pixels; of signals and volumes, by their number of axes, what takes
as many passes or twice as many."""

MOST_PER_SIDE = 27
"""Most windows along a side for a budget of passes: then they are 7 of 224 pixels apart, and nearer gain little."""
SMALLEST_SHARE: Mapping[int, float] = {2: 0.2}
"""Least side of the windows that a budget of passes chooses, as a share of an image's, 45 of 224 pixels. What smaller
ones hide changes hardly any score: docs/evidence.md. For signals and volumes nothing was measured."""

START_NAMES: Mapping[int, tuple[str, ...]] = {1: ("left",), 2: ("top", "left"), 3: ("front", "top", "left")}
"""Names of where a window or a crop starts along each axis, by the number of axes."""


@register
@dataclasses.dataclass(frozen=True)
class Occlusion(Method):
    """Drop in the target's score when a window is missing.

    Attributes:
        sliding_window_shapes: (height, width) of the window in pixels of the model's input, or one number for both;
            None takes a seventh of the input. Of signals and volumes one number for each axis, or one for all.
        strides: (vertical, horizontal) step of the window in pixels, or one number for both; None takes half the
            window. The last window of a row or column is flush with the border, so that every pixel is covered.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    meaning: ClassVar[str] = "drop in {score} when hidden"
    signed: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None
    any_rank: ClassVar[bool] = True

    sliding_window_shapes: int | Sequence[int] | None = None
    strides: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.sliding_window_shapes is not None:
            check_lengths("sliding_window_shapes", self.sliding_window_shapes)
        if self.strides is not None:
            check_lengths("strides", self.strides)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with as many windows as the budget reaches for."""
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

    def resolve(self, size: Size) -> tuple[Size, Size]:
        """Returns the window and the strides, (vertical, horizontal) in pixels each, for an input of ``size``.

        Raises:
            MasktoolError: the window does not fit into the input, or the strides would leave pixels uncovered.
        """
        per_side, axes = WINDOWS_PER_SIDE[len(size)], len(size)
        window = (
            tuple(max(1, round(length / per_side)) for length in size)
            if self.sliding_window_shapes is None
            else check_lengths("sliding_window_shapes", self.sliding_window_shapes, axes)
        )
        strides = half_of(window) if self.strides is None else check_lengths("strides", self.strides, axes)
        check_fits("sliding_window_shapes", window, "the model's input", size)
        check_fits("strides", strides, "the window", window)
        return window, strides


class ChosenWindows(NamedTuple):
    """Windows and their steps, (vertical, horizontal) in pixels each."""

    sliding_window_shapes: Size
    strides: Size


def half_of(window: Size) -> Size:
    """Returns the steps by which windows overlap by half."""
    return tuple(max(1, length // 2) for length in window)


def windows_within(count: int, size: Size) -> ChosenWindows:
    """Returns windows of which at most ``count`` cover an input: the more, the smaller, half a window apart.

    From the smallest ones on (:data:`SMALLEST_SHARE`) more windows are nearer to one another.
    """
    least = SMALLEST_SHARE.get(len(size), 0.0)
    for per_side in range(min(MOST_PER_SIDE, whole_root(count, len(size))), 1, -1):
        window = tuple(max(1, round(max(2 / (per_side + 1), least) * length)) for length in size)
        steps = half_of(window) if 2 / (per_side + 1) >= least else spread_steps(size, window, per_side)
        chosen = ChosenWindows(window, steps)
        if len(window_corners(size, *chosen)) <= count:
            return chosen
    return ChosenWindows(size, size)


def spread_steps(size: Size, window: Size, per_side: int) -> Size:
    """Returns how far apart so many windows along each axis are, the last one flush with the end."""
    return tuple(max(1, math.ceil((length - side) / (per_side - 1))) for length, side in zip(size, window, strict=True))


def check_lengths(name: str, value: int | Sequence[int], axes: int | None = None) -> Size:
    """Returns an option as one length along each axis, or raises a MasktoolError that names the option.

    Args:
        name: the name of the option.
        value: one number for all axes, or one for each.
        axes: the number of axes; None where the input that decides it is not known yet.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (check_count(name, value),) * (axes or 1)
    if len(value) != axes and (axes is not None or len(value) not in START_NAMES):
        expected = {None: "one number, or one for each axis", 1: "one number", 2: "one number or two"}.get(axes)
        expected = expected or f"one number or {axes}"
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))
    return tuple(check_count(name, length) for length in value)


def check_fits(name: str, lengths: Size, limit_name: str, limit: Size) -> None:
    """Raises a MasktoolError where lengths exceed their limit on some axis."""
    if any(length > most for length, most in zip(lengths, limit, strict=True)):
        raise MasktoolError(
            "option out of range",
            where=name,
            expected=f"at most {show_size(limit)}, {limit_name}",
            got=show_size(lengths),
        )


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Returns the positions at which windows start along one axis, the last window flush with the end."""
    starts = list(range(0, length - window + 1, stride))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def window_corners(size: Size, window: Size, strides: Size) -> list[Size]:
    """Returns (top, left), or where it starts along each axis, of every window, row by row."""
    return list(itertools.product(*(window_starts(*along) for along in zip(size, window, strides, strict=True))))


def measure_drops(task: Task, window: Size, corners: Sequence[Size]) -> NDArray[np.float64]:
    """Returns how far the score of each target drops without each window, (n, T)."""

    def batches() -> Iterator[Rows]:
        for piece in task.batch_ranges(len(corners)):
            yield rows_of_corners(corners[piece.start : piece.stop])

    scored = task.evaluate(batches(), len(corners), MissingWindows(task.size, window))
    return np.concatenate([task.base - batch.scores for batch in scored])


def mean_over_windows(
    size: Size, window: Size, corners: Sequence[Size], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the mean of the values (n, T) of the windows that cover a pixel, (T, h, w)."""
    totals = np.zeros((values.shape[1], *size))
    counts = np.zeros(size)
    for corner, value in zip(corners, values, strict=True):
        covered = inside_window(corner, window)
        totals[:, *covered] += value.reshape(-1, *[1] * len(size))
        counts[covered] += 1
    return totals / counts


def inside_window(corner: Size, window: Size) -> tuple[slice, ...]:
    """Returns the places of a window that starts at a corner."""
    return tuple(slice(start, start + length) for start, length in zip(corner, window, strict=True))


def window_masks(size: Size, window: Size, corners: Iterable[Size]) -> Masks:
    """Returns one mask (1, h, w) per corner: 0 inside the window, 1 elsewhere."""
    places = list(corners)
    masks = np.ones((len(places), 1, *size), np.float32)
    for mask, corner in zip(masks, places, strict=True):
        mask[:, *inside_window(corner, window)] = 0
    return masks


@dataclasses.dataclass(frozen=True)
class MissingWindows(WindowDesign):
    """Masks with one missing window each; a row is where it starts: ``top`` and ``left`` (M,) float32, in pixels.

    Attributes:
        size: (height, width) of the masks in pixels, or what their axes are.
        window: (height, width) of the windows in pixels, or what their axes are.
    """

    size: Size
    window: Size

    def corners(self, rows: Rows) -> NDArray[np.int64]:
        """Returns where the windows of a batch of rows start along each axis, (M, 2) of images."""
        return np.stack([rows[name] for name in START_NAMES[len(self.size)]], axis=1).astype(np.int64)

    def expand_corners(self, corners: NDArray[np.int64]) -> Masks:
        """Returns the masks whose windows start at corners (M, 2)."""
        return window_masks(self.size, self.window, corners.tolist())


def rows_of_corners(corners: Sequence[Size]) -> Rows:
    """Returns the rows of :class:`MissingWindows` whose windows start at (top, left), or along each axis."""
    starts = np.array(corners, np.float32).T.copy()
    return dict(zip(START_NAMES[len(starts)], starts, strict=True))
