"""One process: a thread that reads ahead of the model, the model, and a thread that writes behind it."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from masktool.interface.folders.request import ExplanationRequest
from masktool.interface.folders.work import (
    PhotographResult,
    PhotographTask,
    ReadPhotograph,
    explain_read,
    naming_photograph,
    read_photograph,
    write_result,
)
from masktool.runtime.session import MaskedSession

AHEAD, BEHIND = 2, 2
"""Photographs that are read, or wait to be written, at most: memory is bounded by their sum, and the one explained."""
Writes = deque[tuple[PhotographTask, Future[PhotographResult]]]


def explain_in_order(
    session: MaskedSession, tasks: Iterable[PhotographTask], request: ExplanationRequest
) -> Iterator[PhotographResult]:
    """Explains photographs one after the other, and yields what became of each, in their order.

    Raises:
        TargetError: there is no such target, whatever the photograph.
        CannotWriteError: a file cannot be written.
    """
    waiting = iter(tasks)
    reads: deque[tuple[PhotographTask, Future[ReadPhotograph]]] = deque()
    writes: Writes = deque()
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        try:
            while True:
                while len(reads) < AHEAD and (task := next(waiting, None)) is not None:
                    reads.append((task, submit(reader, read_photograph, task)))
                if not reads:
                    break
                task, reading = reads.popleft()
                with naming_photograph(task.path):
                    read = reading.result()
                    found = explain_read(session, read, request)
                writes.append((task, submit(writer, write_result, task, read, found, request)))
                del read, found  # what is written is no longer held here
                while writes and (len(writes) > BEHIND or writes[0][1].done()):
                    yield take_result(writes)
            while writes:
                yield take_result(writes)
        finally:  # of an error, or an interruption: what has not begun does not begin
            for _, reading in reads:
                reading.cancel()
            for _, writing in writes:
                writing.cancel()


def take_result(writes: Writes) -> PhotographResult:
    """Returns what became of the photograph that has waited longest to be written, once it is."""
    task, writing = writes.popleft()
    with naming_photograph(task.path):
        return writing.result()


def submit(pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Calls a function in a pool's thread under the limits that are in force here, which threads do not inherit."""
    return pool.submit(contextvars.copy_context().run, function, *arguments)
