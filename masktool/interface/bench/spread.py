"""Calls that take turns, so that whatever else the machine does falls on all of them; medians, and what lies around."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Spread:
    """What repetitions of one measurement gave.

    Attributes:
        median: the median.
        lowest: the lowest value.
        highest: the highest value.
        repeats: the number of repetitions.
    """

    median: float
    lowest: float
    highest: float
    repeats: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Returns the spread of some values."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1], len(found))


class Lap(NamedTuple):
    """The time of one call in seconds: by the clock on the wall, and of all threads of the process on the CPU."""

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Clocks:
    """The same figure by both clocks: seconds, or ratios of seconds.

    Attributes:
        wall: the figure by the clock on the wall.
        cpu: the figure by the time of all threads of the process on the CPU.
    """

    wall: Spread
    cpu: Spread


def clocks_of(laps: Sequence[Lap]) -> Clocks:
    """Returns the figure that some laps give."""
    return Clocks(Spread.of(lap.wall for lap in laps), Spread.of(lap.cpu for lap in laps))


def time_call(call: Call) -> Lap:
    """Returns how long one call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Lap(time.perf_counter() - wall, time.process_time() - cpu)


def take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[Lap]]:
    """Runs every call once per round, after a first round that does not count, and returns the laps of each.

    Every round begins with another call, so that none always follows the same one.
    """
    for call in calls.values():
        call()
    laps: dict[str, list[Lap]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            laps[name].append(time_call(calls[name]))
    return laps


def divide_laps(laps: Sequence[Lap], by: Sequence[Lap]) -> Clocks:
    """Returns the ratios of the laps of two calls, round by round."""
    ratios = [Lap(lap.wall / other.wall, lap.cpu / other.cpu) for lap, other in zip(laps, by, strict=True)]
    return clocks_of(ratios)
