"""The standard streams of a process: closed ones, ones that nobody reads, and what libraries would write to them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

LAST_STANDARD_STREAM = 2


def open_closed_streams() -> None:
    """Points standard streams that are closed to nowhere: the next file opened would be one of them otherwise."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_STREAM:
        pass
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        stream if stream is not None else os.fdopen(number, mode)
        for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
    )


def silence_stdout() -> None:
    """Points stdout to nowhere, so that the interpreter's own flush at its end does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Keeps what libraries log off stderr within a block: Python shows it where nobody listens.

    Errors are one line, of our own. Whoever has set up logging gets everything as ever.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
