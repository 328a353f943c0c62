"""What a server is started with."""

from __future__ import annotations

import dataclasses

from masktool.serving.jobs import JobBounds


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where a server listens, and what it spends on requests.

    Attributes:
        host: address to listen at.
        port: port to listen at; 0 takes any that is free.
        max_batch: most images, or masks, of one run of a model; a request of more is refused.
        batch_delay: seconds that a request waits for others to share its run.
        queue: most requests that wait for a model.
        max_body: most bytes of a request's body.
        max_held: most bytes of all bodies that are held at once.
        connections: most connections that are open at once.
        seconds: most seconds from a request's first byte to its answer.
        header_seconds: most seconds that a client takes for a request's headers.
        shutdown_seconds: most seconds from SIGTERM to the end.
        jobs: what explanation jobs may take.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 32
    batch_delay: float = 0.0
    queue: int = 128
    max_body: int = 64_000_000
    max_held: int = 512_000_000
    connections: int = 512
    seconds: float = 60.0
    header_seconds: float = 10.0
    shutdown_seconds: float = 30.0
    jobs: JobBounds = dataclasses.field(default_factory=JobBounds)
