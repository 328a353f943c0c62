"""Functions by which a caller of masktool is told of progress and messages, and shows them where it wants to."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """A function to which work reports the steps that it has done."""

    def __call__(self, count: int, note: str = "", /) -> None:
        """Reports steps.

        Args:
            count: number of steps done since the last call.
            note: text to show beside them, such as the loss.
        """


Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""A function from a description of some work and its number of steps to a context manager that yields an
:class:`Advance`."""
Counting = Callable[[int], AbstractContextManager[Advance]]
"""A function from a number of steps to a context manager that yields an :class:`Advance`."""
Say = Callable[[str], None]
"""A function that is given messages for the user, a line at a time."""
LOGGER = "masktool"
"""Name of the logger that messages go to by default."""


def log(message: str) -> None:
    """Passes a message for the user to the logger ``masktool`` (level INFO); the default :data:`Say`."""
    logging.getLogger(LOGGER).info("%s", message)


@contextlib.contextmanager
def no_progress(description: str, total: int) -> Iterator[Advance]:  # noqa: ARG001  # a Progress
    """Shows nothing: the default :data:`Progress`."""
    yield lambda *_: None
