"""Runs one task after the other in a child process under limits of time and memory, and says how each ended.

A fault may be an abort inside a native library, an endless loop or all the memory there is, so that it cannot be
caught in-process. The child is forked once everything is imported; it works through tasks until it dies or is killed,
which is blamed on the task at hand, and then another child goes on with the next.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import masktool
from masktool.errors import MasktoolError

Verdict = Literal["right", "refused", "other"]
Task = TypeVar("Task")
MIB = 2**20
PACKAGE = Path(masktool.__file__).parent


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one task ended.

    Attributes:
        verdict: right; refused by a MasktoolError; or other, which is a fault.
        reason: the error's text, or what happened.
        seconds: of wall time.
        megabytes: largest resident size of the child so far, in MiB.
    """

    verdict: Verdict
    reason: str
    seconds: float = 0.0
    megabytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What one task may take.

    Attributes:
        seconds: of wall time.
        megabytes: of address space beyond what the child starts with, in MiB.
    """

    seconds: float = 30.0
    megabytes: int = 3000


def run_tasks(tasks: Sequence[Task], work: Callable[[Task], str], bounds: Bounds) -> Iterator[tuple[Task, Outcome]]:
    """Yields every task with its outcome, in order.

    Args:
        tasks: what to do.
        work: does one; returns an empty text where the result is right, else what is wrong with it.
        bounds: of each.
    """
    position = 0
    while position < len(tasks):
        for outcome in run_child(tasks[position:], work, bounds):
            yield tasks[position], outcome
            position += 1


def run_child(tasks: Sequence[Task], work: Callable[[Task], str], bounds: Bounds) -> Iterator[Outcome]:
    """Yields outcomes until the tasks or the child's life end; the last one tells how it died."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work_through, args=(tasks, work, bounds, sender))
    child.start()
    sender.close()
    try:
        for _ in tasks:
            started = time.monotonic()
            if not receiver.poll(bounds.seconds):
                yield Outcome("other", f"still running after {bounds.seconds:g} s", bounds.seconds)
                return
            try:
                yield Outcome(**json.loads(receiver.recv_bytes()))
            except EOFError:
                child.join()
                yield Outcome("other", describe_death(child.exitcode), time.monotonic() - started)
                return
    finally:
        child.kill()
        child.join()
        receiver.close()


def describe_death(code: int | None) -> str:
    """Returns how a child died, in words."""
    if code is not None and code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def work_through(
    tasks: Sequence[Task],
    work: Callable[[Task], str],
    bounds: Bounds,
    sender: multiprocessing.connection.Connection,
) -> None:
    """Works through tasks in the child, and sends each outcome as JSON."""
    os.setsid()  # a Ctrl-C is the parent's to handle
    logging.disable(logging.CRITICAL)
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ceiling = address_space() + bounds.megabytes * MIB
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    for task in tasks:
        started = time.monotonic()
        outcome = judge(task, work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        outcome = dataclasses.replace(outcome, seconds=time.monotonic() - started, megabytes=peak)
        sender.send_bytes(json.dumps(dataclasses.asdict(outcome)).encode())


def address_space() -> int:
    """Returns the bytes of address space that this process has."""
    with open("/proc/self/statm") as stream:  # noqa: PTH123 - a file of the kernel
        return int(stream.read().split()[0]) * resource.getpagesize()


def judge(task: Task, work: Callable[[Task], str]) -> Outcome:
    """Does one task, and turns what comes of it into an outcome."""
    try:
        wrong = work(task)
    except MasktoolError as error:
        return Outcome("refused", str(error))
    except BaseException as error:  # this is what is looked for, SystemExit and KeyboardInterrupt included
        return Outcome("other", describe_raw(error))
    return Outcome("other", f"wrong: {wrong}") if wrong else Outcome("right", "")


def describe_raw(error: BaseException) -> str:
    """Returns type, text and place of an exception that is not a MasktoolError."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            place = f" at {path.relative_to(PACKAGE)}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}{place}"
