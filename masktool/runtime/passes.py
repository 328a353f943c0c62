"""Counts forward passes and the time that they take, rightly where several threads run one session."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass(eq=False)
class Tally:
    """Images pushed through a model within one block of code, and the time inside ONNX Runtime in seconds."""

    passes: int = 0
    seconds: float = 0.0


_TALLIES: contextvars.ContextVar[tuple[tuple[object, Tally], ...]] = contextvars.ContextVar("tallies", default=())
"""Tallies of this thread, or task, each with the counter that it belongs to."""


class PassCounter:
    """Images pushed through a model so far, by whichever thread.

    Attributes:
        total: number of images.
    """

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def free_lock(self) -> None:
        """Takes a new lock: in a forked process the old one may be held by a thread that is not there."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def timing(self, count: int) -> Iterator[None]:
        """Adds the time of the block, which runs the model, and a number of images where it raises nothing."""
        began = time.perf_counter()
        yield
        self.add(count, time.perf_counter() - began)

    def add(self, count: int, seconds: float) -> None:
        """Adds a number of images to the total, and with the seconds they took to the tallies of this thread."""
        with self._lock:
            self.total += count
            for counter, tally in _TALLIES.get():
                if counter is self:
                    tally.passes += count
                    tally.seconds += seconds

    @contextlib.contextmanager
    def tally(self) -> Iterator[Tally]:
        """Yields a tally of the images pushed through within the block by this thread alone."""
        tally = Tally()
        token = _TALLIES.set((*_TALLIES.get(), (self, tally)))
        try:
            yield tally
        finally:
            _TALLIES.reset(token)
