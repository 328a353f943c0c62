"""What is behind the addresses: models, their batches, jobs, and whether requests are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import numpy as np

from masktool.serving.batcher import Batcher
from masktool.serving.explanations import ExplanationTask, make_explanation
from masktool.serving.jobs import JobQueue
from masktool.serving.logs import log_event, log_fault
from masktool.serving.metrics import Metrics
from masktool.serving.refusals import RequestError, refuse_while_ending
from masktool.serving.served_model import VERSION, CheckedRequest, ServedModel
from masktool.serving.settings import ServeSettings

POLL_SECONDS = 0.05
"""Seconds between two looks at whether all work has ended."""
LARGE_BODY = 1_000_000
"""Bytes from which a request is read in a thread, so that health checks are answered meanwhile."""

Outputs = dict[str, np.ndarray]


class Service:
    """All that a server holds.

    Args:
        models: the models, in the order in which they are listed.
        settings: what may be spent.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServeSettings) -> None:
        self.models = {model.name: model for model in models}
        self.settings = settings
        self.metrics = Metrics()
        self.warm = False
        self.ending = False
        self.in_flight = 0
        self.jobs: JobQueue[ExplanationTask] = JobQueue(make_explanation, settings.jobs)
        self.batchers: Mapping[str, Batcher[CheckedRequest, Outputs]] = {}

    @property
    def takes_requests(self) -> bool:
        """Whether the server is ready."""
        return self.warm and not self.ending

    def find_model(self, name: str, version: str | None = None) -> ServedModel:
        """Returns the model of a name.

        Raises:
            RequestError: there is none, or none of that version.
        """
        if name not in self.models:
            raise RequestError(
                "no such model", status=HTTPStatus.NOT_FOUND, expected=" | ".join(self.models), got=name[:100]
            )
        if version not in (None, VERSION):
            raise RequestError(
                "no such version", status=HTTPStatus.NOT_FOUND, where=name, expected=VERSION, got=str(version)[:100]
            )
        return self.models[name]

    def check_ready(self) -> None:
        """Raises RequestError unless new work is taken."""
        if self.ending:
            raise refuse_while_ending()
        if not self.warm:
            raise RequestError(
                "the server is warming up", status=HTTPStatus.SERVICE_UNAVAILABLE, retry_after=1, fix="ask again later"
            )

    async def start(self) -> None:
        """Makes the queues of the running loop, and warms the models up while the server answers that it is alive."""
        settings = self.settings
        self.batchers = {
            name: Batcher(
                model.run_batch,
                largest=settings.max_batch,
                delay=settings.batch_delay,
                longest=settings.queue,
                observe=self.metrics.rows.labels(name).observe,
            )
            for name, model in self.models.items()
        }
        self.warming = asyncio.create_task(self.warm_up())

    async def warm_up(self) -> None:
        """Runs every model once, and is ready."""
        for name, model in self.models.items():
            began = time.perf_counter()
            try:
                await asyncio.to_thread(model.warm_up)
            except Exception as error:  # a model that cannot run says so to whoever asks it; the others are served
                log_fault("warm-up failed", error, model=name)
            else:
                log_event("warmed up", model=name, seconds=round(time.perf_counter() - began, 3))
        self.warm = True
        log_event("ready", models=list(self.models))

    async def infer(self, model: ServedModel, request: CheckedRequest) -> Outputs:
        """Returns the outputs of a request, which shares its run with others where it can."""
        return await self.batchers[model.name].submit(request, request.rows, request.key)

    def write_metrics(self) -> bytes:
        """Returns all figures for Prometheus."""
        queues = {name: batcher.length for name, batcher in self.batchers.items()}
        return self.metrics.write(queues, self.jobs.count_states(), self.in_flight, ready=self.takes_requests)

    async def drain(self) -> bool:
        """Takes no more work, and waits until what is running has ended; False where that takes too long."""
        self.ending = True
        self.jobs.close()
        end = time.monotonic() + self.settings.shutdown_seconds
        while self.in_flight or self.jobs.running:
            if time.monotonic() > end:
                self.jobs.stop()
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def close(self) -> None:
        """Ends the queues."""
        self.jobs.stop()
        for batcher in self.batchers.values():
            await batcher.close()
