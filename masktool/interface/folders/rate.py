"""How fast photographs are explained, and how long the rest takes."""

from __future__ import annotations

import time
from collections import deque

RECENT = 60
"""Photographs over which the rate is taken: those at the start wait for the model to warm up, and sizes differ."""
MINUTE, HOUR, DAY = 60, 3600, 86400


class Rate:
    """The rate of recent work; what was done before is not counted."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.recent: deque[float] = deque([self.started], maxlen=RECENT + 1)

    def count(self, done: int) -> None:
        """Notes that one more is done; of 0, that one was done before, so that time begins to count now."""
        now = time.monotonic()
        if done:
            self.recent.append(now)
        elif len(self.recent) == 1:
            self.recent[0] = now

    @property
    def per_second(self) -> float | None:
        """The number done per second, lately; None as long as nothing was."""
        elapsed = self.recent[-1] - self.recent[0]
        return (len(self.recent) - 1) / elapsed if len(self.recent) > 1 and elapsed > 0 else None

    @property
    def seconds(self) -> float:
        """The time since the start in seconds."""
        return time.monotonic() - self.started

    def describe(self, left: int) -> str:
        """Returns the rate, and the time that a number of others takes at that rate, in words."""
        rate = self.per_second
        if rate is None:
            return ""
        return f"{describe_rate(rate)}, {describe_duration(left / rate)} left"


def describe_rate(per_second: float) -> str:
    """Returns a rate in words, by the unit in which it is no fraction."""
    for seconds, unit in ((1, "a second"), (MINUTE, "a minute"), (HOUR, "an hour")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.3g} {unit}"
    return f"{per_second * DAY:.2g} a day"


def describe_duration(seconds: float) -> str:
    """Returns a time in words, in its two largest units."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min {seconds % MINUTE:.0f} s"
    if seconds < DAY:
        return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:.0f} min"
    return f"{seconds // DAY:.0f} d {seconds % DAY // HOUR:.0f} h"
