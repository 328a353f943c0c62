"""Several processes: each opens the model for itself and takes photographs as it is free; one that dies is replaced.

A photograph in whose process the system ended (most often for want of memory) is tried once more while no other is
explained, and then counts as one that cannot be explained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from masktool.errors import MasktoolError
from masktool.files import remove_abandoned
from masktool.interface.folders.request import ExplanationRequest
from masktool.interface.folders.work import PhotographResult, PhotographTask, UnforeseenError, work_on
from masktool.interface.load import load
from masktool.limits import limits, raised_limits
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

WINDOW = 4
"""Photographs for each process that may be handed out beyond the first unfinished one: results wait in memory for it,
since they are told in order."""
PATIENCE = 10.0
"""Seconds that a process has to end after it was asked to; a forward pass cannot be interrupted."""
READY = "ready"


@dataclasses.dataclass(frozen=True)
class SessionOpening:
    """How a process opens the model, a file that ``export`` wrote.

    Attributes:
        path: path of the file.
        providers: ONNX Runtime's providers, as for :func:`masktool.load`.
        threads: number of threads that one node may use in each process.
        provider_options: options of the providers.
    """

    path: Path
    providers: str | Sequence[str] | None
    threads: int | None
    provider_options: Mapping[str, object] | None

    def open(self) -> MaskedSession:
        """Opens the model."""
        return load(self.path, self.providers, self.threads, provider_options=self.provider_options)


def share_threads(jobs: int, threads: int | None) -> int:
    """Returns the number of threads of each of several processes: as asked for, else its share of the CPUs."""
    return threads or max(1, count_cpus() // jobs)


def count_cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve_photographs(
    connection: Connection, opening: SessionOpening, request: ExplanationRequest, raised: Mapping[str, int]
) -> None:
    """Runs in a process of its own: opens the model, and works on each photograph that comes, until there are no more.

    An interruption of the terminal reaches all processes; the first one alone decides what follows, and ends the others
    by SIGTERM, on which half-written files are removed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_process)
    with limits(**raised), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            session = opening.open()
            connection.send(READY)
        except MasktoolError as error:
            connection.send(error)
            return
        with session:
            while (task := connection.recv()) is not None:
                try:
                    answer: PhotographResult | Exception = work_on(session, task, request)
                except (MasktoolError, UnforeseenError) as error:  # it ends the run, and is raised there
                    answer = error
                connection.send(answer)


def end_process(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of signal handlers
    """Ends the process; what is being written is removed on the way."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


class Worker:
    """A process that explains photographs, as its starter sees it.

    Attributes:
        connection: the starter's end of the pipe to the process.
        task: the photograph that the process has; None where it has none.
        ready: whether the process has opened the model.
    """

    def __init__(self, opening: SessionOpening, request: ExplanationRequest) -> None:
        context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.connection, other = context.Pipe()
        arguments = (other, opening, request, raised_limits())
        self.process = context.Process(target=serve_photographs, args=arguments, daemon=True)
        self.process.start()
        other.close()
        self.task: PhotographTask | None = None
        self.ready = False

    def give(self, task: PhotographTask) -> None:
        """Hands a photograph to the process."""
        self.task = task
        with contextlib.suppress(OSError):  # it has died, which is seen where its answer is awaited
            self.connection.send(task)

    def receive(self) -> Any:
        """Returns what the process sent; None where it has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None

    def end(self) -> None:
        """Ends the process, in the middle of a photograph too."""
        if self.ready and self.task is None:
            with contextlib.suppress(OSError):
                self.connection.send(None)
        else:
            self.process.terminate()

    def join(self) -> None:
        """Waits until the process has ended."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class WorkerPool:
    """Hands photographs to processes, and takes what became of them; a context manager that leaves none running."""

    def __init__(self, opening: SessionOpening, request: ExplanationRequest, jobs: int, say: Say) -> None:
        self.opening, self.request, self.jobs, self.say = opening, request, jobs, say
        self.workers: list[Worker] = []
        self.alone: deque[PhotographTask] = deque()
        self.tried: set[int] = set()

    def __enter__(self) -> WorkerPool:
        self.workers = [Worker(self.opening, self.request) for _ in range(self.jobs)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            worker.join()
        remove_abandoned(self.request.directory)

    def explain(self, tasks: Iterable[PhotographTask]) -> Iterator[PhotographResult]:
        """Yields what became of each photograph, in their order.

        Raises:
            MasktoolError: what concerns every photograph: a file cannot be written, there is no such target, a process
                dies before it has opened the model.
        """
        waiting, finished, following = deque(tasks), dict[int, PhotographResult](), deque[int]()
        following.extend(task.place for task in waiting)
        while following:
            self.hand_out(waiting, following[0])
            for result in self.await_results():
                finished[result.place] = result
            while following and following[0] in finished:
                yield finished.pop(following.popleft())

    def hand_out(self, waiting: deque[PhotographTask], first: int) -> None:
        """Gives photographs to the processes that have none; one that is tried alone, to one process only."""
        free = [worker for worker in self.workers if worker.ready and worker.task is None]
        busy = any(worker.task is not None for worker in self.workers)
        if self.alone:
            if free and not busy:
                free[0].give(self.alone.popleft())
            return
        if busy and any(worker.task is not None and worker.task.place in self.tried for worker in self.workers):
            return
        for worker in free:
            if waiting and waiting[0].place < first + WINDOW * self.jobs:
                worker.give(waiting.popleft())

    def await_results(self) -> Iterator[PhotographResult]:
        """Waits until a process says something or dies, and yields the results that there are."""
        by_connection = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # type: ignore[index]
            answer = worker.receive()
            if answer is None:
                yield from self.bury(worker)
            elif answer == READY:
                worker.ready = True
            elif isinstance(answer, BaseException):
                raise answer
            else:
                worker.task = None
                yield answer

    def bury(self, worker: Worker) -> Iterator[PhotographResult]:
        """Replaces a process that has died; yields the result of its photograph where that was tried before.

        Raises:
            MasktoolError: the process died before it had opened the model.
        """
        ending, task = describe_ending(worker.process.exitcode), worker.task
        if not worker.ready:
            raise MasktoolError(
                "a process ended while it opened the model",
                where=self.opening.path,
                got=ending,
                fix="ask for fewer processes",
            )
        worker.connection.close()
        self.workers[self.workers.index(worker)] = Worker(self.opening, self.request)
        if task is None:
            return
        if task.place in self.tried:
            yield PhotographResult(task.place, None, error=f"{task.path}: its process ended twice, {ending}")
            return
        self.say(f"{task.path}: its process ended, {ending}; it is tried once more, alone")
        self.tried.add(task.place)
        self.alone.append(task)


def describe_ending(code: int | None) -> str:
    """Returns in words how a process ended, by its exit code."""
    if code is None or code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name}" + (", as where memory runs out" if -code == getattr(signal, "SIGKILL", 9) else "")
