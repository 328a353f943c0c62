"""The standard streams of a process: closed streams, streams without a reader, and what libraries log to them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

LAST_STANDARD_STREAM = 2


def open_closed_streams() -> None:
    """Opens closed standard streams on the null device: the next file opened would take their place otherwise."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_STREAM:
        pass
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        stream if stream is not None else os.fdopen(number, mode)
        for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
    )


def silence_stdout() -> None:
    """Points stdout to the null device, so that the interpreter's flush at its end does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Keeps libraries' log messages off stderr within a block, where Python shows them if logging is not set up.

    masktool's errors are one line of its own. A program that has set up logging gets everything as before.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
