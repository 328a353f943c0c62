"""The standard streams of a process, where they are closed or nobody reads them."""

from __future__ import annotations

import contextlib
import os
import sys

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
