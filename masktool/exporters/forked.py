"""Runs work of a native library that may end the process in a child process first, which may die of it.

An assertion in C++ raises SIGABRT, which nothing in a process can catch. Where the system can fork (not on Windows) the
child is a copy of this process, so that the work needs no file and no copy of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

PATIENCE = 120.0
"""Seconds after which a child is given up: another thread may have held a lock when the process was forked."""
MILLISECONDS = 1000
CAN_FORK = hasattr(os, "fork")
"""Not on Windows, where work that may end the process is done without a child before it."""
CHUNK = 65_536


class Ending(NamedTuple):
    """How a child process ended.

    Attributes:
        signal: the name of the signal that the child died of; None where the child ended by itself.
        said: the text that the work returned; empty where the child died or the work raised an exception.
    """

    signal: str | None
    said: str


LIVED = Ending(None, "")
"""The ending of a child that could not be started, or was given up: nothing is known against its work."""


def try_in_child(work: Callable[[], str], patience: float = PATIENCE) -> Ending:
    """Runs work in a forked child and returns how the child ended; what the work raises is not passed on.

    Args:
        work: the function to run, which may change any object: this process sees nothing of it.
        patience: the time in seconds that the child has.
    """
    if not CAN_FORK:
        return LIVED
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings(), without_collecting():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of locks, see PATIENCE
            child = os.fork()
            if not child:
                gc.freeze()
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


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Keeps Python from collecting garbage within the block.

    What was garbage before a fork must not be collected in the child: the end of a session of ONNX Runtime waits for
    the session's threads, of which the child has none. Python's own steps after a fork already allocate, and so may
    collect.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def work_in_child(work: Callable[[], str], writer: int) -> None:
    """Runs work in the child, writes the text that it returned to a pipe, and ends the child.

    What the work writes to stderr is discarded.
    """
    try:
        faulthandler.disable()
        forbid_core_files()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writer, work().encode()[:CHUNK])
    finally:
        os._exit(0)


def forbid_core_files() -> None:
    """Keeps a child that aborts from writing its memory to disk."""
    import resource  # where there is fork

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_all(reader: int, patience: float) -> str | None:
    """Returns the text read from a pipe until its other end is closed; None where that takes too long."""
    found, last = b"", time.monotonic() + patience
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while poll.poll(max(0, int((last - time.monotonic()) * MILLISECONDS))):
        chunk = os.read(reader, CHUNK)
        if not chunk:
            return found.decode(errors="replace")
        found += chunk
    return None
