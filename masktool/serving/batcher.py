"""Batches across requests: what waits for a model while it computes goes through it together."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Generic, TypeVar

from masktool.serving.refusals import RequestError, refuse_while_ending

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRY_SECONDS = 1
"""Seconds after which a client that was turned away may ask again: a queue of requests is short."""


@dataclasses.dataclass(frozen=True)
class Waiting(Generic[Item, Result]):
    """A request that waits.

    Attributes:
        item: what is to be run.
        rows: how many rows of a batch it fills.
        key: items of one key can share a batch; None for what runs alone.
        arrived: the loop's time at which it came.
        future: where its result goes.
    """

    item: Item
    rows: int
    key: Hashable | None
    arrived: float
    future: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Collects items into batches and runs these one after the other in a thread of its own.

    A batch is the item that came first, with those of its key that have come until the thread is free, or until
    ``delay`` has passed where it is free already. Items of other keys keep their order.

    Args:
        run: function that runs a batch in the thread, and returns a result or an exception for each item.
        largest: most rows of a batch; an item of more runs alone.
        delay: most seconds that an item waits for others while the thread is free.
        longest: most items that wait.
        observe: function that is called with the rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        largest: int,
        delay: float,
        longest: int,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._run = run
        self._largest, self._delay, self._longest = largest, delay, longest
        self._observe = observe
        self._waiting: deque[Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masktool-batches")
        self._task: asyncio.Task[None] | None = None

    @property
    def length(self) -> int:
        """Number of items that wait."""
        return len(self._waiting)

    async def submit(self, item: Item, rows: int, key: Hashable | None) -> Result:
        """Returns the result of an item. Whoever cancels this takes the item out, unless it is running already.

        Raises:
            RequestError: too many items wait.
        """
        if self.length >= self._longest:
            raise RequestError(
                "too many requests wait for the model",
                status=HTTPStatus.TOO_MANY_REQUESTS,
                retry_after=RETRY_SECONDS,
                expected=f"at most {self._longest}",
                fix="ask again later",
            )
        loop = asyncio.get_running_loop()
        entry = Waiting[Item, Result](item, rows, key, loop.time(), loop.create_future())
        self._waiting.append(entry)
        self._arrived.set()
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await entry.future

    async def close(self) -> None:
        """Ends the work; items that wait or run are refused."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        turn_away(self._waiting)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            self._observe(sum(entry.rows for entry in batch))
            items = [entry.item for entry in batch]
            context = contextvars.copy_context()  # limits that were raised hold in the thread too
            try:
                results = await loop.run_in_executor(self._thread, context.run, self._run, items)
            except asyncio.CancelledError:
                turn_away(batch)
                raise
            except Exception as error:  # whatever it is, the requests are answered and the work goes on
                results = [error] * len(batch)
            for entry, result in zip(batch, results, strict=True):
                if entry.future.done():  # the client has gone away
                    continue
                if isinstance(result, Exception):
                    entry.future.set_exception(result)
                else:
                    entry.future.set_result(result)

    async def _collect(self) -> list[Waiting[Item, Result]]:
        """Waits for a batch, and takes it out of what waits."""
        while True:
            self._drop_cancelled()
            if self._waiting:
                first = self._waiting[0]
                left = first.arrived + self._delay - asyncio.get_running_loop().time()
                batch = self._choose(first)
                if first.key is None or left <= 0 or sum(entry.rows for entry in batch) >= self._largest:
                    chosen = set(map(id, batch))
                    self._waiting = deque(entry for entry in self._waiting if id(entry) not in chosen)
                    return batch
                await self._wait(left)
            else:
                await self._wait(None)

    async def _wait(self, seconds: float | None) -> None:
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)

    def _choose(self, first: Waiting[Item, Result]) -> list[Waiting[Item, Result]]:
        """Returns the first item, and those of its key that fit beside it."""
        batch, rows = [first], first.rows
        if first.key is not None:
            for entry in list(self._waiting)[1:]:
                if entry.key == first.key and rows + entry.rows <= self._largest:
                    batch.append(entry)
                    rows += entry.rows
        return batch

    def _drop_cancelled(self) -> None:
        if any(entry.future.done() for entry in self._waiting):
            self._waiting = deque(entry for entry in self._waiting if not entry.future.done())


def turn_away(entries: Iterable[Waiting[Item, Result]]) -> None:
    """Refuses what the server does not come to any more."""
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(refuse_while_ending())
