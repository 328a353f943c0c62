"""What every request passes: limits on bytes and time, an id, a line in the log, and JSON for whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from masktool.errors import MasktoolError
from masktool.limits import DIGITS
from masktool.serving.incoming import BODY, IncomingBody
from masktool.serving.logs import log_event, log_fault
from masktool.serving.refusals import RequestError, setting
from masktool.serving.service import Service
from masktool.serving.tensors import HEADER_LENGTH

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a client's own X-Request-Id may look like; any other is replaced."""
DISCARDED = 4
"""Times the limit on a body that are read and thrown away, so that a client that is still sending reads the refusal."""
CLIENT_CLOSED = 499
"""What the log calls a request whose client has gone away, as nginx does."""
TOO_LARGE = HTTPStatus(413)
"""Python 3.13 gave it another name."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every answer."""


class Guard:
    """The outermost layer of the application.

    Args:
        app: the application behind it.
        service: what the application serves.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], service: Service) -> None:
        self.app, self.service, self.settings = app, service, service.settings
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes the server's start and end on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        self.service.in_flight += 1
        try:
            await self.answer(exchange, receive)
        finally:
            self.service.in_flight -= 1
            self.report(exchange)

    async def answer(self, exchange: Exchange, receive: Receive) -> None:
        """Reads the body, calls the application, and answers with an error where either fails."""
        try:
            if exchange.scope["method"] == "POST":
                self.service.check_ready()  # what has come before the end is answered, however long its body takes
            async with asyncio.timeout(self.settings.seconds):
                content = await self.read_body(exchange, receive)
                exchange.scope[BODY] = content
                await self.app(exchange.scope, replay(content, receive), exchange.pass_on)
        except ClientGoneError:
            exchange.status = CLIENT_CLOSED
        except TimeoutError as error:
            await self.refuse(exchange, self.time_is_up(exchange), error)
        except Exception as error:  # a fault of the server's, whatever it is, must not end it
            await self.refuse(exchange, error, error)
        finally:
            self.held -= exchange.held

    async def read_body(self, exchange: Exchange, receive: Receive) -> memoryview:
        """Returns the body.

        Raises:
            RequestError: it is too large, or too many bytes are held already.
            ClientGoneError: the client has closed the connection.
        """
        if exchange.header("content-encoding") not in (None, "identity"):
            raise RequestError(
                "compressed bodies are not read",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                got=str(exchange.header("content-encoding"))[:100],
                fix="send it as it is",
            )
        announced, most = exchange.number("content-length"), self.settings.max_body
        if (announced or 0) > most:
            await self.discard(exchange, receive)
        body = IncomingBody(announced, exchange.number(HEADER_LENGTH) or 0)
        async for chunk in exchange.chunks(receive):
            if exchange.received > most:
                await self.discard(exchange, receive)
            exchange.held += len(chunk)
            self.held += len(chunk)
            if self.held > self.settings.max_held:
                raise RequestError(
                    "the server holds too many bytes of requests already",
                    status=HTTPStatus.TOO_MANY_REQUESTS,
                    retry_after=1,
                    fix="ask again later",
                )
            body.add(chunk)
        return body.content

    async def discard(self, exchange: Exchange, receive: Receive) -> NoReturn:
        """Throws away a body that is too large, and refuses it: a client that is still sending would not read that.

        Raises:
            RequestError: always.
        """
        most = self.settings.max_body
        async for _ in exchange.chunks(receive):
            if exchange.received > DISCARDED * most:
                break
        raise RequestError(
            "the request's body is too large",
            status=TOO_LARGE,
            expected=f"at most {most} bytes",
            got=max(exchange.number("content-length") or 0, exchange.received),
            fix="send fewer images in one request, or start the server with more " + setting("max_body"),
        )

    def time_is_up(self, exchange: Exchange) -> RequestError:
        """Returns the refusal of a request that took too long: the client's fault, or the server's."""
        expected = f"at most {self.settings.seconds:g} s"
        if exchange.whole:
            return RequestError(
                "the answer took too long",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                retry_after=1,
                expected=expected,
                fix="ask for an explanation as a job, or start the server with more " + setting("seconds"),
            )
        return RequestError(
            "the request took too long to arrive",
            status=HTTPStatus.REQUEST_TIMEOUT,
            expected=expected,
            got=f"{exchange.received} bytes",
            fix="send it faster, or start the server with more " + setting("seconds"),
        )

    async def refuse(self, exchange: Exchange, error: Exception, cause: BaseException) -> None:
        """Answers with an error, unless an answer has begun: then the connection is ended."""
        if exchange.begun:
            log_fault("an answer that was cut off", cause, request_id=exchange.identifier)
            raise error
        response = respond_to_error(error)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
            log_fault("unforeseen error", cause, request_id=exchange.identifier)
        exchange.error = str(error)
        if not exchange.whole:
            response.headers["connection"] = "close"
        await response(exchange.scope, nothing_more, exchange.pass_on)

    def report(self, exchange: Exchange) -> None:
        """Counts a request and writes its line in the log."""
        endpoint = getattr(exchange.scope.get("endpoint"), "__name__", "none")
        self.service.metrics.count(endpoint, exchange.status, exchange.seconds)
        quiet = endpoint in ("live", "ready", "metrics") and exchange.status == HTTPStatus.OK
        log_event(
            "request",
            logging.DEBUG if quiet else logging.INFO,
            request_id=exchange.identifier,
            method=exchange.scope["method"],
            path=exchange.scope["path"][:200],
            status=exchange.status,
            seconds=round(exchange.seconds, 6),
            received=exchange.received,
            **({} if exchange.error is None else {"error": exchange.error[:500]}),
        )


class ClientGoneError(Exception):
    """The client has closed the connection before its request was whole."""


class Exchange:
    """One request and its answer, as far as they have come.

    Args:
        scope: ASGI's description of the request.
        send: function that sends the answer's parts.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self.send = scope, send
        self.headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.headers.get(b"x-request-id", "")
        self.identifier = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.began = time.perf_counter()
        self.status, self.received, self.held = CLIENT_CLOSED, 0, 0
        self.begun = self.whole = False
        self.error: str | None = None

    def header(self, name: str) -> str | None:
        """Returns a header of the request."""
        return self.headers.get(name.encode())

    def number(self, name: str) -> int | None:
        """Returns a header of the request that is a number; None where there is none, or it is too long to be one."""
        text = self.header(name)
        fits = text is not None and text.isascii() and text.isdigit() and len(text) <= DIGITS
        return int(text) if fits else None  # type: ignore[arg-type]  # looked at above

    async def chunks(self, receive: Receive) -> AsyncIterator[bytes]:
        """Yields the rest of the body, part by part.

        Raises:
            ClientGoneError: the client has closed the connection.
        """
        while not self.whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            self.received += len(chunk)
            self.whole = not message.get("more_body", False)
            yield chunk

    @property
    def seconds(self) -> float:
        """Seconds since the request's headers came."""
        return time.perf_counter() - self.began

    async def pass_on(self, message: Message) -> None:
        """Sends a part of the answer, the first one with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            extra = HEADERS | {"x-request-id": self.identifier}
            message = {
                **message,
                "headers": [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())],
            }
        await self.send(message)


def replay(content: memoryview, receive: Receive) -> Receive:
    """Returns a function that gives a body that was read already, and then what comes behind it: for forms."""
    left = [content]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": bytes(left.pop()), "more_body": False}
        return await receive()

    return again


async def nothing_more() -> Message:
    """Is what an answer without a request receives."""
    return {"type": "http.disconnect"}


def respond_to_error(error: Exception) -> Response:
    """Returns the answer to an error: its one line as JSON, as the protocol has it, and its status."""
    headers: dict[str, str] = {}
    if isinstance(error, RequestError):
        status: int = error.status
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        text = str(error.message)
    elif isinstance(error, MasktoolError):
        status, text = HTTPStatus.BAD_REQUEST, str(error.message)
    elif isinstance(error, HTTPException):
        status, text = error.status_code, f"{error.detail}; the addresses are listed in masktool serve's page"
        headers.update(error.headers or {})
    else:
        status, text = (
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "a fault of the server; its log says more under the request's id",
        )
    return JSONResponse({"error": text}, status, headers)
