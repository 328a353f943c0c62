"""When a method that draws samples has drawn enough: the one place where that is asked.

A map is *stable* when the half-width of its 95 % interval, 1.96 times the root mean square of its standard error, is
at most a tolerance times the map's range, for every target. The order of its *top k* parts has settled when it has been
the same over two doublings of the samples, for every target (:mod:`masktool.explainers.top_order`). A method asks after
fixed numbers of samples, which follow from the count alone and never from the batch, so that a seed gives one answer
whatever the batch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.top_order import TopOrder
from masktool.messages import Placeholder, join, parameter
from masktool.option_checks import check_choice, check_count, check_real

Until = Literal["stable", "top-k"]
"""What a run of samples may go on until."""
FIRST_LOOK = 32
"""Samples after which a run first asks; before, a standard error says little about itself."""
LOOK_SHARE = 4
"""A run asks again when this part of its samples has come again, so that asking costs little beside the passes."""
TWO_DOUBLINGS = 4
"""Times as many samples as those at which an order was first seen, at which it counts as settled."""
NORMAL_95 = 1.96
"""Standard errors to either side within which 95 % of a normal distribution lies."""
FEWEST_PASSES = 3
"""Smallest budget: the image as it is, and two samples, which a standard error needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopping:
    """When a method that draws samples stops, whichever method it is.

    Attributes:
        until: ``stable`` stops before the method's number of samples where the map has settled, ``top-k`` where the
            order of its highest parts has; None does as ``stable`` does, and only where that number was left open.
        tolerance: the largest half-width of the map's 95 % interval, as a share of its range, at which it is stable.
        budget: the largest number of forward passes, that of the image as it is among them; None sets no limit.
        seconds: the time in seconds after which no more samples are drawn, so that the answer depends on the machine;
            None sets no limit.
        top_k: the number of segments, or cells of the map, whose order ``top-k`` asks for.
    """

    until: Until | None = None
    tolerance: float = 0.05
    budget: int | None = None
    seconds: float | None = None
    top_k: int = 5

    def __post_init__(self) -> None:
        check_choice("until", self.until, (None, *get_args(Until)))
        check_real("tolerance", self.tolerance, above=0, below=1)
        if self.budget is not None:
            check_count("budget", self.budget, minimum=FEWEST_PASSES)
        if self.seconds is not None:
            check_real("seconds", self.seconds, above=0)
        check_count("top_k", self.top_k)
        unused = "tolerance" if self.until == "top-k" else "top_k"
        if (value := getattr(self, unused)) != getattr(Stopping, unused):
            raise MasktoolError(
                "what is stable is asked with a tolerance, and which parts are highest with their number",
                where=join(", ", [parameter("until", self.until or get_args(Until)[0]), parameter(unused, value)]),
                fix="leave one of them out",
            )

    @property
    def given(self) -> dict[str, Any]:
        """The attributes that are not the defaults, by name; with ``top-k`` the number of parts in any case."""
        own = {"top_k"} if self.until == "top-k" else set()
        given = dataclasses.asdict(self).items()
        return {name: value for name, value in given if value != getattr(Stopping, name) or name in own}

    def share(self, count: int, passes: int) -> Stopping:
        """Returns the part of the limits for each of several targets that are explained one after the other.

        Args:
            count: the number of targets.
            passes: the number of passes that one sample of every target takes.
        """
        budget = None if self.budget is None else max(FEWEST_PASSES, 1 + (self.budget - 1) // passes)
        return dataclasses.replace(self, budget=budget, seconds=self.seconds and self.seconds / count)

    def refuse_for(self, title: str) -> None:
        """Raises a MasktoolError where something was given that a method without samples has no use for.

        A budget is no such thing: every method has its settings for one.
        """
        given = {name: value for name, value in self.given.items() if name != "budget"}
        if given:
            raise MasktoolError(
                f"{title} draws no samples, which could be enough before their end",
                where=join(", ", [parameter(name, value) for name, value in given.items()]),
                fix="leave that out",
            )


STOPPING_ARGUMENTS = tuple(field.name for field in dataclasses.fields(Stopping))
"""Keyword arguments of ``explain`` that say when a method stops."""


class Look(NamedTuple):
    """How sure one target's map is at one moment.

    Attributes:
        error: the root mean square of the standard error of the map's values.
        span: the map's range, its maximum minus its minimum.
        order_since: the number of samples at which the present order of its highest parts was first seen; None where
            that is not asked for.
    """

    error: float
    span: float
    order_since: int | None = None

    @property
    def half_width(self) -> float:
        """The half-width of the 95 % interval as a share of the map's range; infinite for a flat map with an error."""
        if self.error == 0:
            return 0.0
        return NORMAL_95 * self.error / self.span if self.span > 0 else math.inf


class SampleRun:
    """The samples of one run of a method: how many are drawn, and whether they are enough.

    A method scores the samples of :meth:`pieces`. Whenever :attr:`pauses` is true behind a piece, it makes its maps of
    all that it has and hands them to :meth:`judge`. The last piece always ends in a pause.

    Args:
        stopping: when to stop.
        count: the number of samples that the user asks for; None leaves it open.
        most: the largest number of samples where that is left open.
        first_look: the number of samples at which the run first asks, and the least between two times.

    Attributes:
        until_settled: whether the run ends once the maps of all targets have settled.
        most: the largest number of samples of this run.
        drawn: the number of samples drawn so far.
    """

    def __init__(self, stopping: Stopping, count: int | None, most: int, first_look: int = FIRST_LOOK) -> None:
        self.stopping, self.first_look = stopping, first_look
        self.until_settled = count is None or stopping.until is not None
        self.most = most if count is None else count
        if stopping.budget is not None:
            self.most = min(self.most, stopping.budget - 1)
        self.drawn = 0
        self._judged = 0
        self._next_look = next_look(0, first_look)
        self._looks: tuple[Look, ...] = ()
        self._orders: list[TopOrder] = []
        self._started = time.monotonic()

    def pieces(self, batch: int) -> Iterator[range]:
        """Yields the samples of one forward pass at a time, at most ``batch`` of them, until the run ends.

        They are cut where a run that ends at a stable map would look, so that its number of samples, given as a count,
        repeats it to the last bit.
        """
        while not self.ended:
            start = self.drawn
            if start == self._next_look:
                self._next_look = next_look(start, self.first_look)
            self.drawn = min(start + batch, self._next_look, self.most)
            yield range(start, self.drawn)

    @property
    def pauses(self) -> bool:
        """Whether the method makes its maps now."""
        looks = self.until_settled and self.drawn == self._next_look
        return looks or self.drawn == self.most or self.is_out_of_time

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time is over."""
        return self.stopping.seconds is not None and time.monotonic() - self._started >= self.stopping.seconds

    def judge(self, maps: NDArray[np.floating[Any]], variances: NDArray[np.floating[Any]]) -> None:
        """Takes the map of each target, (T, S) or (T, h, w), and the squared standard errors of its values."""
        self._judged = self.drawn
        since = self.follow_orders(maps) if self.stopping.until == "top-k" else [None] * len(maps)
        self._looks = tuple(
            Look(float(np.sqrt(np.maximum(variance, 0).mean())), float(np.ptp(each)), first)
            for each, variance, first in zip(maps, variances, since, strict=True)
        )

    def follow_orders(self, maps: NDArray[np.floating[Any]]) -> list[int | None]:
        """Returns at which number of samples the order of each target's highest parts was first seen."""
        self._orders = self._orders or [TopOrder(self.stopping.top_k) for _ in maps]
        for order, values in zip(self._orders, maps, strict=True):
            order.look(values, self.drawn)
        return [order.since for order in self._orders]

    @property
    def settled(self) -> bool:
        """Whether the maps of all targets had settled when the method last made them."""
        return bool(self._looks) and all(map(self.is_stable, self._looks))

    def is_stable(self, look: Look) -> bool:
        """Tells whether one target's map is sure enough; one without an error is in any case."""
        if look.order_since is not None:
            return look.error == 0 or self._judged >= TWO_DOUBLINGS * look.order_since
        return look.half_width <= self.stopping.tolerance

    @property
    def ended(self) -> bool:
        """Whether no more samples are drawn."""
        is_judged = self._judged == self.drawn > 0
        enough = self.drawn == self.most or (self.until_settled and self.settled) or self.is_out_of_time
        return is_judged and enough

    def quality(self) -> tuple[dict[str, float], ...]:
        """Returns the figures by which to judge the map of each target."""
        return tuple(
            {
                "attributions_error": look.error,
                "attributions_range": look.span,
                "samples": self.drawn,
                "settled": self.is_stable(look),
                **({} if look.order_since is None else {"order_since": look.order_since}),
            }
            for look in self._looks
        )

    def notes(self) -> tuple[tuple[str, ...], ...]:
        """Returns what the reader of each target's map must know of how the run ended."""
        return tuple(tuple(self.notes_of(look)) for look in self._looks)

    def notes_of(self, look: Look) -> Iterator[str]:
        """Yields the notes on one target's map."""
        again = parameter("n_samples", self.drawn)
        if self.drawn < self.most and not (self.until_settled and self.settled):
            yield f"the time was over after {self.drawn} samples: this depends on the machine; " + again + " repeats it"
        if not self.until_settled or self.is_stable(look):
            return
        if look.order_since is not None:
            needed = TWO_DOUBLINGS * look.order_since
            yield (
                f"the order of the {self.stopping.top_k} highest parts had not settled after {self.drawn} samples: it "
                f"last changed at {look.order_since}, and two doublings would be {needed}; "
                + parameter("n_samples", needed)
                + " would reach there, should it not change again"
            )
        else:
            yield (
                f"the map had not settled after {self.drawn} samples: half its 95 % interval is {look.half_width:.2g} "
                f"of its range, beyond the tolerance of {self.stopping.tolerance:g}; "
                + parameter("n_samples", self.samples_for(look))
                + " would draw enough, as far as these tell"
            )

    def samples_for(self, look: Look) -> int | Placeholder:
        """Returns how many samples would bring a map within the tolerance, rounded up to two digits."""
        if not math.isfinite(look.half_width):
            return Placeholder("N")
        needed = self.drawn * (look.half_width / self.stopping.tolerance) ** 2
        digit = 10.0 ** max(0, math.floor(math.log10(needed)) - 1)
        return int(math.ceil(needed / digit) * digit)


def next_look(last: int, first: int = FIRST_LOOK) -> int:
    """Returns the number of samples at which a run asks whether it is enough, having asked at ``last`` before."""
    return last + max(first, last // LOOK_SHARE // first * first)
