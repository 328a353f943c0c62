"""The process that serves: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn

from masktool.errors import MasktoolError
from masktool.serving.application import make_application
from masktool.serving.connection import make_connections
from masktool.serving.logs import log_event, write_json_lines
from masktool.serving.refusals import setting
from masktool.serving.served_model import ServedModel
from masktool.serving.service import Service
from masktool.serving.settings import ServeSettings

BACKLOG = 1024
"""Connections that the system holds until they are accepted."""
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
STRAGGLERS = 70
"""Exit code of a server whose work did not end within its time."""


def take_port(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to an address, so that a port that is taken is told before models are opened.

    Raises:
        MasktoolError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise MasktoolError(
            "no such address", where=host, got=error.strerror or error, fix="give another " + setting("host")
        ) from error
    if sys.platform != "win32":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        taken = error.errno == errno.EADDRINUSE
        fix = (
            "end what listens there, or give another " + setting("port") if taken else "give another " + setting("host")
        )
        what = "the port is taken" if taken else "cannot listen there"
        raise MasktoolError(what, where=f"{host}:{port}", got=error.strerror, fix=fix) from error
    return bound


class GracefulServer(uvicorn.Server):
    """uvicorn's server, whose signals begin an orderly end instead of one at once.

    Args:
        config: uvicorn's settings.
        service: what is served.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.orderly = True
        self.ending: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Answers signals while the server runs: the first begins the end, the second hastens it."""
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of signal handlers
            loop.call_soon_threadsafe(self.begin_end, signal.Signals(number).name)

        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin_end(self, name: str) -> None:
        """Begins the end, or ends at once where it has begun."""
        if self.ending is not None:
            self.orderly = False
            self.should_exit = self.force_exit = True
            return
        log_event("ending", signal=name, in_flight=self.service.in_flight, jobs=self.service.jobs.running)
        self.ending = asyncio.get_running_loop().create_task(self.end())

    async def end(self) -> None:
        """Waits for what is running, and lets the server end."""
        self.orderly = await self.service.drain()
        if not self.orderly:
            await self.service.close()  # whose requests are then told so
        self.should_exit = True


def serve(
    open_models: Callable[[], Sequence[ServedModel]],
    settings: ServeSettings,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves models until a signal ends the process.

    Args:
        open_models: function that opens the models; it is called when the port is known to be free.
        settings: where to listen, and what may be spent.
        announce: function that is called with the address once it listens.

    Raises:
        MasktoolError: the port is taken, or a model cannot be opened.
    """
    bound = take_port(settings.host, settings.port)
    with contextlib.closing(bound):
        service = Service(open_models(), settings)
        write_json_lines()
        config = uvicorn.Config(
            make_application(service),
            http=make_connections(settings.header_seconds, settings.connections),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=1,
        )
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        announce(address)
        log_event("listening", address=address, models=list(service.models), pid=os.getpid())
        server = GracefulServer(config, service)
        server.run(sockets=[bound])
    log_event("ended", orderly=server.orderly)
    if not server.orderly:  # a run inside ONNX Runtime cannot be interrupted, and Python would wait for its thread
        sys.stderr.flush()
        os._exit(STRAGGLERS)
