"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from masktool.serving.jobs import JobState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("endpoint", "status")
        self.requests = Counter("masktool_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "masktool_request_seconds",
            "Seconds from the first byte of a request to the last of its answer.",
            ("endpoint",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.rows = Histogram(
            "masktool_batch_rows", "Rows of each run.", ("model",), buckets=ROWS, registry=self.registry
        )
        self.queue = Gauge(
            "masktool_queue_length", "Requests that wait for the model.", ("model",), registry=self.registry
        )
        self.jobs = Gauge(
            "masktool_jobs", "Explanation jobs that are known, by state.", ("state",), registry=self.registry
        )
        self.in_flight = Gauge("masktool_in_flight", "Requests that are being answered.", registry=self.registry)
        self.ready = Gauge("masktool_ready", "1 while new requests are taken.", registry=self.registry)

    def count(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts one request that was answered."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def write(self, queues: Mapping[str, int], states: Mapping[JobState, int], in_flight: int, *, ready: bool) -> bytes:
        """Returns all figures in Prometheus's text format.

        Args:
            queues: how many requests wait for each model.
            states: how many jobs stand how.
            in_flight: how many requests are being answered.
            ready: whether new requests are taken.
        """
        for name, length in queues.items():
            self.queue.labels(name).set(length)
        for state in JobState:
            self.jobs.labels(state.value).set(states.get(state, 0))
        self.in_flight.set(in_flight)
        self.ready.set(ready)
        return generate_latest(self.registry)
