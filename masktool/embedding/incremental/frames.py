"""Frames: which places of a map a window can have changed, whatever image and network's weights.

A map lies on a grid of its own; ``scale`` is the distance of its places in pixels of the image. A window that starts at
pixel o stands at place ⌊o / scale⌋ of that grid, and its frame begins a fixed number of places from there: the frames
of all windows have one size. Frames may reach beyond the map's borders.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Span:
    """The places of a frame along one axis: from step · ⌊o / scale⌋ + low, for a window that starts at pixel o.

    Attributes:
        scale: the distance of places in pixels, or ``step`` times as much.
        low: where the span starts, in places.
        size: the number of places.
        step: how many places a window moves on at once.
    """

    scale: int
    low: int
    size: int
    step: int = 1

    @property
    def end(self) -> int:
        """The first place behind the span, counted as ``low`` is."""
        return self.low + self.size

    def moves_with(self, other: Span) -> bool:
        """Whether the distance between the starts of two spans is the same for all windows."""
        return (self.scale, self.step) == (other.scale, other.step)

    def holds(self, other: Span) -> bool:
        """Whether a span that moves with this one lies within it."""
        return self.low <= other.low and other.end <= self.end

    def leaves(self, length: int, last: int) -> bool:
        """Whether the span of any window reaches beyond a map.

        Args:
            length: the length of the map in places.
            last: the last pixel at which a window starts.
        """
        return self.low < 0 or self.step * (last // self.scale) + self.end > length


Frame = tuple[Span, Span]
"""The spans along height and width."""


def union(frames: Sequence[Frame]) -> Frame | None:
    """Returns the smallest frame that holds all of some; None where they do not move together."""
    spans = []
    for along in zip(*frames, strict=True):
        if not all(span.moves_with(along[0]) for span in along):
            return None
        low, end = min(span.low for span in along), max(span.end for span in along)
        spans.append(dataclasses.replace(along[0], low=low, size=end - low))
    return spans[0], spans[1]


@dataclasses.dataclass(frozen=True)
class Sliding:
    """How an operator's window slides along one axis.

    Attributes:
        extent: the distance between the window's first and last place, plus one.
        stride: the distance between neighbouring windows.
        pad: the number of places in front of the map at which the first window starts.
    """

    extent: int
    stride: int
    pad: int


@functools.cache
def phases(scale: int, stride: int, alignment: int) -> tuple[int, ...]:
    """Returns the places, modulo a stride, at which windows stand on a grid.

    Args:
        scale: the scale of the grid.
        stride: the stride.
        alignment: the greatest common divisor of the pixels at which windows start; 0 where all start at pixel 0.
    """
    period = scale * stride
    starts = range(0, period, math.gcd(alignment, period))
    return tuple(sorted({start // scale % stride for start in starts}))


def slide(span: Span, by: Sliding, alignment: int) -> tuple[Span, Span]:
    """Returns the span of what an operator's windows give from a span, and the span that they read for it.

    Args:
        span: the span of the operator's input; a window moves on it by one place at a time.
        by: how the operator's window slides.
        alignment: as for :func:`phases`.
    """
    found = phases(span.scale, by.stride, alignment)
    first, last = found[0], found[-1]
    low = -((by.extent - 1 - by.pad - span.low - first) // by.stride)
    high = (span.end - 1 + by.pad + last) // by.stride
    given = Span(span.scale * by.stride, low, max(high - low + 1, 1))  # a stride may pass over all of a span
    start, size = by.stride * low - by.pad, (given.size - 1) * by.stride + by.extent
    if len(found) == 1:
        return given, Span(span.scale, start - first, size)
    return given, Span(given.scale, start, size, by.stride)
