"""Batches across requests, without a model."""

import asyncio
import threading
import time

import pytest

from masktool.limits import limit, limits
from masktool.serving.batcher import Batcher
from masktool.serving.refusals import RequestError


class Recorder:
    """What runs batches: keeps them, and waits until it is let go."""

    def __init__(self, *, held=False):
        self.batches, self.gate = [], threading.Event()
        if not held:
            self.gate.set()

    def __call__(self, items):
        self.batches.append(list(items))
        assert self.gate.wait(10)
        return [ValueError(item) if item == "bad" else f"{item}!" for item in items]


def batcher_of(run, **options):
    return Batcher(run, **{"largest": 4, "delay": 0.01, "longest": 8} | options)


async def settle():
    """Lets whatever is ready run."""
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_what_waits_while_the_model_computes_goes_together():
    async def play():
        run = Recorder(held=True)
        seen = []
        batcher = batcher_of(run, delay=0, observe=seen.append)
        first = asyncio.ensure_future(batcher.submit("a", 1, "k"))
        await settle()
        rest = [asyncio.ensure_future(batcher.submit(item, 1, "k")) for item in "bcdef"]
        await settle()
        assert batcher.length == 5
        run.gate.set()
        assert await asyncio.gather(first, *rest) == ["a!", "b!", "c!", "d!", "e!", "f!"]
        assert run.batches == [["a"], ["b", "c", "d", "e"], ["f"]]
        assert seen == [1, 4, 1]
        await batcher.close()

    asyncio.run(play())


def test_a_request_waits_for_company_no_longer_than_the_bound():
    async def play():
        run = Recorder()
        batcher = batcher_of(run, delay=0.2)
        began = time.perf_counter()
        first = asyncio.ensure_future(batcher.submit("a", 1, "k"))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(batcher.submit("b", 1, "k"))
        await asyncio.gather(first, second)
        assert run.batches == [["a", "b"]]
        assert time.perf_counter() - began >= 0.2
        await batcher.close()

    asyncio.run(play())


def test_a_full_batch_does_not_wait():
    async def play():
        run = Recorder()
        batcher = batcher_of(run, delay=30)
        found = await asyncio.wait_for(asyncio.gather(batcher.submit("a", 2, "k"), batcher.submit("b", 2, "k")), 5)
        assert (found, run.batches) == (["a!", "b!"], [["a", "b"]])
        assert await asyncio.wait_for(batcher.submit("large", 9, "k"), 5) == "large!"
        await batcher.close()

    asyncio.run(play())


def test_requests_of_other_keys_and_of_none_run_apart():
    async def play():
        run = Recorder(held=True)
        batcher = batcher_of(run, delay=0)
        blocker = asyncio.ensure_future(batcher.submit("x", 1, None))
        await settle()
        items = [("a", "k"), ("b", None), ("c", "l"), ("d", "k")]
        rest = [asyncio.ensure_future(batcher.submit(item, 1, key)) for item, key in items]
        await settle()
        run.gate.set()
        assert await asyncio.gather(*rest) == ["a!", "b!", "c!", "d!"]
        assert await blocker == "x!"
        assert run.batches == [["x"], ["a", "d"], ["b"], ["c"]]
        await batcher.close()

    asyncio.run(play())


def test_what_fails_fails_alone_and_the_work_goes_on():
    async def play():
        def explode(items):
            if "boom" in items:
                raise RuntimeError("out of memory")
            return Recorder()(items)

        batcher = batcher_of(explode)
        good, bad = await asyncio.gather(
            batcher.submit("good", 1, "k"), batcher.submit("bad", 1, "k"), return_exceptions=True
        )
        assert good == "good!"
        assert isinstance(bad, ValueError)
        with pytest.raises(RuntimeError):
            await batcher.submit("boom", 1, "k")
        assert await batcher.submit("after", 1, "k") == "after!"
        await batcher.close()

    asyncio.run(play())


def test_the_queue_is_bounded_and_who_goes_leaves_it():
    async def play():
        run = Recorder(held=True)
        batcher = batcher_of(run, delay=0, longest=2)
        running = asyncio.ensure_future(batcher.submit("a", 1, "k"))
        await settle()
        gone = asyncio.ensure_future(batcher.submit("gone", 1, "k"))
        stays = asyncio.ensure_future(batcher.submit("b", 1, "k"))
        await settle()
        with pytest.raises(RequestError) as refused:
            await batcher.submit("c", 1, "k")
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        gone.cancel()
        await settle()
        run.gate.set()
        assert await asyncio.gather(running, stays) == ["a!", "b!"]
        assert run.batches == [["a"], ["b"]]
        await batcher.close()

    asyncio.run(play())


def test_limits_that_were_raised_hold_in_the_thread():
    async def play():
        batcher = batcher_of(lambda items: [limit("pixels")] * len(items))
        with limits(pixels=7):
            found = await batcher.submit("a", 1, "k")
        await batcher.close()
        return found

    assert asyncio.run(play()) == 7


def test_closing_refuses_what_waits_and_what_runs():
    async def play():
        run = Recorder(held=True)
        batcher = batcher_of(run, delay=0)
        running = asyncio.ensure_future(batcher.submit("a", 1, "k"))
        await settle()
        waiting = asyncio.ensure_future(batcher.submit("b", 1, "k"))
        await settle()
        run.gate.set()
        await batcher.close()
        await asyncio.wait([running, waiting], timeout=1)
        assert [each.exception().status for each in (running, waiting)] == [503, 503]

    asyncio.run(play())
