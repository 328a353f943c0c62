"""How work tells what is done of it, and what the user should know; who called it decides whether and where that is
shown.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """Tells how much is done."""

    def __call__(self, count: int, note: str = "", /) -> None:
        """Counts the steps since the last call; a note, such as the loss, is shown beside them."""


Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Starts to show some work, given what it is called and its number of steps."""
Counting = Callable[[int], AbstractContextManager[Advance]]
"""Starts to count up to a number of steps."""
Say = Callable[[str], None]
"""Is told what the user should know, a line at a time."""
LOGGER = "masktool"
"""Name of the logger that messages go to where nothing else is said."""


def log(message: str) -> None:
    """Passes on what the user should know to ``logging``, which shows it where a program asks for that."""
    logging.getLogger(LOGGER).info("%s", message)


@contextlib.contextmanager
def no_progress(description: str, total: int) -> Iterator[Advance]:  # noqa: ARG001  # a Progress
    """Shows nothing."""
    yield lambda *_: None
