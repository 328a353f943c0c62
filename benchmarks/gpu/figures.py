"""Figures with their spread: seconds of calls made in turn, and ratios of these."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.timing import seconds_of


def make_figure(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, lowest and highest of some values and their number, as JSON takes it."""
    return {
        "median": finite(statistics.median(values)),
        "lowest": finite(min(values)),
        "highest": finite(max(values)),
        "runs": len(values),
    }


def finite(value: float) -> float | None:
    """Returns a number as JSON takes it: None in place of NaN and infinities, four digits of all others."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def time_in_turn(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Makes calls in turn, so that whatever else the machine does falls on all, and returns the seconds of each.

    Args:
        calls: calls by name; each has been made before.
        repeats: number of rounds, each of which makes every call once.
        seconds: seconds after which no further round begins; there is always one.
        clock: function that returns seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = clock()
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds_of(call))
        if clock() - began > seconds:
            break
    return times


def ratios_of(times: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Returns how many times as long a call took as another one in the same round."""
    return make_figure([own / other for own, other in zip(times, others, strict=True)])
