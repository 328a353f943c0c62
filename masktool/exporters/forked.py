"""Work of a native library that may end the process, done first in a child that may die of it.

An assertion in C++ raises SIGABRT, which nothing in a process can catch. Where the system can fork (not on Windows) the
child is a copy of this process, so that the work needs no file and no copy of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

PATIENCE = 120.0
"""Seconds after which a child is given up: another thread may have held a lock when the process was forked."""
MILLISECONDS = 1000
CAN_FORK = hasattr(os, "fork")
"""Not on Windows, where work that may end the process is done without a child before it."""
CHUNK = 65_536


class Ending(NamedTuple):
    """How a child ended.

    Attributes:
        signal: that it died of; None where it came to its end.
        said: what its work returned; empty where it died or raised an exception.
    """

    signal: str | None
    said: str


LIVED = Ending(None, "")
"""Of a child that could not be started, or was given up: nothing is known against its work."""


def try_in_child(work: Callable[[], str], patience: float = PATIENCE) -> Ending:
    """Does something in a forked child and returns how that ended; exceptions are left for whoever does it again.

    Args:
        work: to be done, which may change whatever it likes: nothing of that is seen here.
        patience: seconds that the child has.
    """
    if not CAN_FORK:
        return LIVED
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of locks, see PATIENCE
            child = os.fork()
    except OSError:  # no process or memory to be had: then the work is done without a child before it
        os.close(reader)
        os.close(writer)
        return LIVED
    if not child:
        work_in_child(work, writer)
    os.close(writer)
    try:
        said = read_all(reader, patience)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # does nothing to one that has ended
        status = os.waitpid(child, 0)[1]
    if said is None:
        return LIVED
    return Ending(signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None, said)


def work_in_child(work: Callable[[], str], writer: int) -> None:
    """Does the work, writes down what it returned, and ends the child; what it says on stderr is nobody's to read."""
    try:
        faulthandler.disable()
        forbid_core_files()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writer, work().encode()[:CHUNK])
    finally:
        os._exit(0)


def forbid_core_files() -> None:
    """Keeps a child that aborts from leaving its memory on disk."""
    import resource  # where there is fork

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_all(reader: int, patience: float) -> str | None:
    """Returns what comes until the other end is closed; None where that takes too long."""
    found, last = b"", time.monotonic() + patience
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while poll.poll(max(0, int((last - time.monotonic()) * MILLISECONDS))):
        chunk = os.read(reader, CHUNK)
        if not chunk:
            return found.decode(errors="replace")
        found += chunk
    return None
