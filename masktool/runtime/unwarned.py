"""Python's warnings turned off for a while, in a way that threads can share."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator


class Unwarned:
    """A function whose context is one in which Python's warnings are not shown, in any thread.

    ``warnings.catch_warnings`` puts back what it found: of two threads that overlap, the one that ends last would put
    back the other's silence, for good. Here the first to enter turns warnings off, and the last to leave turns them on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._usual = warnings.catch_warnings()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keeps warnings off within the block."""
        with self._lock:
            if not self._inside:
                self._usual = warnings.catch_warnings()
                self._usual.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._usual.__exit__(None, None, None)


unwarned = Unwarned()
"""The one of this process: filters of warnings are the process's."""
