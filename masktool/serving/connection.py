"""Connections of HTTP/1.1 that end where a client sends its headers too slowly, and that say in JSON what is wrong."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def make_connections(seconds: float, most: int) -> type[H11Protocol]:
    """Returns the class of connections whose clients have some seconds for a request's headers.

    uvicorn bounds the time between two requests, and the size of headers, but not the time that they take.

    Args:
        seconds: seconds for a request's headers.
        most: most connections that are open at once; what comes beyond is told so and closed.
    """

    class PatientConnection(H11Protocol):
        """One connection."""

        headers_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """Begins to wait for the first request."""
            super().connection_made(transport)
            if len(self.connections) > most:
                self.end(503, f"more than {most} connections are open; ask again later", "retry-after: 1\r\n")
            else:
                self.await_headers()

        def data_received(self, data: bytes) -> None:
            """Takes bytes in: once the headers are whole, the clock stands."""
            if self.between_requests:
                self.await_headers()
            super().data_received(data)
            if not self.between_requests:
                self.forget_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forgets the clock of a connection that is gone."""
            self.forget_headers()
            super().connection_lost(exc)

        @property
        def between_requests(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def await_headers(self) -> None:
            """Starts the clock, unless it runs."""
            if self.headers_timer is None:
                self.headers_timer = self.loop.call_later(seconds, self.give_up)

        def forget_headers(self) -> None:
            """Stops the clock."""
            if self.headers_timer is not None:
                self.headers_timer.cancel()
                self.headers_timer = None

        def give_up(self) -> None:
            """Ends a connection whose headers did not come in time."""
            self.headers_timer = None
            if not self.transport.is_closing():
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            """Says what is no HTTP, as all other errors are said."""
            self.end(400, msg.rstrip(".") + "; send HTTP/1.1")

        def end(self, status: int, text: str, headers: str = "") -> None:
            """Answers with an error and ends the connection."""
            content = json.dumps({"error": text}).encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{headers}content-type: application/json\r\n"
            head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + content)
            self.transport.close()

    return PatientConnection
