"""Timing two callables in turn, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds_of(call: Callable[[], object]) -> float:
    """Returns how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    name_a: str, a: Callable[[], object], name_b: str, b: Callable[[], object], repeats: int, warm_up: int = 2
) -> float:
    """Runs a and b in turn, prints medians and spread, and returns the median of the ratios b / a."""
    for _ in range(warm_up):
        a()
        b()
    pairs = [(seconds_of(a), seconds_of(b)) for _ in range(repeats)]
    for name, times in zip((name_a, name_b), zip(*pairs, strict=True), strict=True):
        print(f"{name:>10}: median {statistics.median(times):.4f} s, from {min(times):.4f} to {max(times):.4f} s")
    ratios = sorted(time_b / time_a for time_a, time_b in pairs)
    ratio = statistics.median(ratios)
    print(f"{name_b} / {name_a}: median {ratio:.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}, {repeats} pairs")
    return ratio
