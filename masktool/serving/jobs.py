"""Explanations that take seconds or minutes: a bounded queue of jobs, their progress, and results that expire."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import enum
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Generic, TypeVar

from masktool.errors import MasktoolError
from masktool.progress import Advance
from masktool.serving.logs import log_fault
from masktool.serving.refusals import RequestError, refuse_while_ending, setting

Task = TypeVar("Task")
ID_BYTES = 16
"""Bytes of an id, all random: who does not know it cannot ask for the job."""
REMEMBERED = 10_000
"""Jobs that have ended, and ids of results that have expired, which are told apart from ids that never were."""
FAULT = "a fault of the server; its log says more under the explanation's id"
"""What a client is told of an unforeseen error, whose text may name files of the server's."""
ASSUMED_SECONDS = 5.0
"""Seconds that a job is taken to last before any has ended."""


class JobState(enum.StrEnum):
    """How a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class JobCancelled(BaseException):
    """Raised inside a job that is to end; no ``except Exception`` between holds it up."""


@dataclasses.dataclass(eq=False)
class Job(Generic[Task]):
    """One explanation to be made; whoever reads or writes it while it runs holds its queue's lock.

    Attributes:
        task: what is to be done; None once the job has ended, for it may hold a photograph.
        model: name of the model that it explains.
        identifier: its name, which nobody can guess.
        created: seconds of the queue's clock at which it came.
        size: bytes that its task holds.
        state: how it stands.
        description: what is being done, in words.
        done: steps done of ``total``.
        total: steps that this takes; 0 where that is not known.
        note: what is said beside the steps, such as a loss.
        error: why it failed, in one line.
        result: bytes of its result by their kind (``json``, ``png``).
        started: seconds at which it began; None before.
        finished: seconds at which it ended; None before.
        deadline: seconds at which it is ended; None before it has begun.
        unwanted: whether it is to end.
    """

    task: Task | None
    model: str
    identifier: str
    created: float
    size: int
    state: JobState = JobState.QUEUED
    description: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    error: str | None = None
    result: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    started: float | None = None
    finished: float | None = None
    deadline: float | None = None
    unwanted: bool = False


@dataclasses.dataclass(frozen=True)
class JobBounds:
    """What jobs may take.

    Attributes:
        workers: how many run at once.
        longest: how many wait.
        waiting_bytes: bytes that the tasks of those that wait may hold together.
        seconds: how long one may run.
        expiry: seconds for which a result is kept.
        kept_bytes: bytes of results that are kept; the oldest go first.
    """

    workers: int = 1
    longest: int = 16
    waiting_bytes: int = 256_000_000
    seconds: float = 600.0
    expiry: float = 600.0
    kept_bytes: int = 512_000_000


class JobQueue(Generic[Task]):
    """Runs jobs in threads of its own, first come, first served.

    Args:
        run: function that does a task and returns its result; it is given a ``Progress`` to report to, whose calls are
            where a job that is to end ends.
        bounds: what jobs may take.
        clock: function that returns seconds.
    """

    def __init__(
        self,
        run: Callable[[Task, Callable[[str, int], contextlib.AbstractContextManager[Advance]]], Mapping[str, bytes]],
        bounds: JobBounds = JobBounds(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self.bounds, self._clock = run, bounds, clock
        self._jobs: dict[str, Job[Task]] = {}
        self._ended: deque[Job[Task]] = deque()  # the first to end stands first
        self._kept_bytes = 0
        self._waiting: deque[Job[Task]] = deque()
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._mean_seconds = ASSUMED_SECONDS
        self._closed = False
        self.changed = threading.Condition()
        for number in range(bounds.workers):
            context = contextvars.copy_context()  # limits that were raised hold in the thread too
            name = f"masktool-job-{number}"
            threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True).start()

    def submit(self, task: Task, model: str, size: int) -> Job[Task]:
        """Puts a task into the queue and returns its job.

        Args:
            task: what is to be done.
            model: name of the model that it explains.
            size: bytes that the task holds, such as those of a picture.

        Raises:
            RequestError: the queue is full, or closed.
        """
        with self.changed:
            self._sweep()
            if self._closed:
                raise refuse_while_ending()
            held = sum(job.size for job in self._waiting)
            full = len(self._waiting) >= self.bounds.longest
            if full or (self._waiting and held + size > self.bounds.waiting_bytes):
                turns = (len(self._waiting) + 1) / self.bounds.workers
                raise RequestError(
                    "too many explanations wait",
                    status=HTTPStatus.TOO_MANY_REQUESTS,
                    retry_after=max(1, round(self._mean_seconds * turns)),
                    expected=f"at most {self.bounds.longest}, and {self.bounds.waiting_bytes} bytes of pictures",
                    fix="ask again later",
                )
            job = Job[Task](task, model, secrets.token_hex(ID_BYTES), self._clock(), size)
            self._jobs[job.identifier] = job
            self._waiting.append(job)
            self.changed.notify_all()
            return job

    def find(self, identifier: str, model: str) -> Job[Task]:
        """Returns the job of an id and a model.

        Raises:
            RequestError: there is none (404), or its result has expired (410).
        """
        with self.changed:
            self._sweep()
            job = self._jobs.get(identifier)
            if job is not None and job.model == model:
                return job
            if identifier in self._expired:
                fix = f"fetch results within {self.bounds.expiry:g} s, or ask for the explanation again"
                raise RequestError("the result has expired", status=HTTPStatus.GONE, fix=fix)
            raise RequestError("no such explanation", status=HTTPStatus.NOT_FOUND, fix="see the id in the 202")

    def cancel(self, job: Job[Task]) -> None:
        """Cancels a job: one that waits at once, one that runs at its next report of progress.

        A job that has ended keeps its state, and its result is dropped.
        """
        with self.changed:
            if not job.state.ended:
                job.unwanted = True
                self._end(job, JobState.CANCELLED)
                if job in self._waiting:
                    self._waiting.remove(job)
            self._keep(job, {})

    def place_of(self, job: Job[Task]) -> int | None:
        """Returns how many jobs are to begin before one that waits; None for any other."""
        with self.changed:
            return self._waiting.index(job) if job in self._waiting else None

    def seconds_left(self, job: Job[Task]) -> int | None:
        """Returns for how many more seconds the result of a job is kept at most; None for one that has not ended."""
        with self.changed:
            return None if job.finished is None else max(0, round(job.finished + self.bounds.expiry - self._clock()))

    def count_states(self) -> Mapping[JobState, int]:
        """Returns how many of the jobs that are known stand how."""
        with self.changed:
            self._sweep()
            return Counter(job.state for job in self._jobs.values())

    def close(self) -> None:
        """Takes no more jobs, and cancels those that wait; those that run go on."""
        with self.changed:
            self._closed = True
            for job in self._waiting:
                self._end(job, JobState.CANCELLED)
            self._waiting.clear()
            self.changed.notify_all()

    def stop(self) -> None:
        """Cancels what runs, at its next report of progress."""
        self.close()
        with self.changed:
            running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
        for job in running:
            self.cancel(job)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self.count_states()[JobState.RUNNING]

    # -- in the threads

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self.changed.wait()
                job = self._waiting.popleft()
                task, job.state, job.started = job.task, JobState.RUNNING, self._clock()
                job.deadline = job.started + self.bounds.seconds
                self.changed.notify_all()
            assert task is not None
            self._do(job, task)

    def _do(self, job: Job[Task], task: Task) -> None:
        try:
            result = self._run(task, lambda description, total: self._report(job, description, total))
        except JobCancelled:
            return  # whoever cancelled it has ended it
        except MasktoolError as error:
            self._finish(job, JobState.FAILED, error=str(error.message))
        except Exception as error:  # of whatever library: the job has failed, the thread goes on
            log_fault("unforeseen error in an explanation", error, explanation=job.identifier)
            self._finish(job, JobState.FAILED, error=FAULT)
        else:
            self._finish(job, JobState.DONE, result=result)

    @contextlib.contextmanager
    def _report(self, job: Job[Task], description: str, total: int) -> Iterator[Advance]:
        """The ``Progress`` of a job."""
        with self.changed:
            job.description, job.done, job.total, job.note = description, 0, total, ""

        def advance(count: int, note: str = "", /) -> None:
            with self.changed:
                if job.unwanted:
                    raise JobCancelled
                job.done, job.note = job.done + count, note
                if job.deadline is not None and self._clock() > job.deadline:
                    raise MasktoolError(
                        "the explanation took too long",
                        expected=f"at most {self.bounds.seconds:g} s",
                        got=f"{job.done} of {job.total} steps",
                        fix="ask for fewer samples, or start the server with more " + setting("job_seconds"),
                    )

        advance(0)
        yield advance

    def _finish(
        self, job: Job[Task], state: JobState, *, error: str | None = None, result: Mapping[str, bytes] | None = None
    ) -> None:
        with self.changed:
            if job.unwanted:
                return
            job.error = error
            self._keep(job, result or {})
            self._end(job, state)
            if job.started is not None and job.finished is not None:
                self._mean_seconds = (self._mean_seconds + job.finished - job.started) / 2

    # -- with the lock held

    def _end(self, job: Job[Task], state: JobState) -> None:
        job.state, job.finished, job.task = state, self._clock(), None
        self._ended.append(job)
        self.changed.notify_all()

    def _keep(self, job: Job[Task], result: Mapping[str, bytes]) -> None:
        self._kept_bytes += size_of_result(result) - size_of_result(job.result)
        job.result = result

    def _sweep(self) -> None:
        """Forgets what ended too long ago, and the oldest where all results together are too large or too many."""
        now = self._clock()
        while self._ended:
            job = self._ended[0]
            assert job.finished is not None
            few = len(self._ended) <= REMEMBERED and self._kept_bytes <= self.bounds.kept_bytes
            if few and now - job.finished < self.bounds.expiry:
                break
            self._ended.popleft()
            self._keep(job, {})
            del self._jobs[job.identifier]
            self._expired[job.identifier] = None
        while len(self._expired) > REMEMBERED:
            self._expired.popitem(last=False)


def size_of_result(result: Mapping[str, bytes]) -> int:
    """Returns the bytes of a result."""
    return sum(map(len, result.values()))
