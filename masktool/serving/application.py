"""The application: all addresses behind the guard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from masktool.errors import MasktoolError
from masktool.serving.guard import Guard, respond_to_error
from masktool.serving.job_endpoints import JobEndpoints
from masktool.serving.page_endpoints import PageEndpoints
from masktool.serving.service import Service
from masktool.serving.v2_endpoints import ProtocolEndpoints


def make_application(service: Service) -> Guard:
    """Returns the application, for any server that speaks ASGI."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    async def tell(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as handlers are called
        return respond_to_error(error)

    endpoints = (ProtocolEndpoints(service), JobEndpoints(service), PageEndpoints(service))
    starlette = Starlette(
        routes=[route for each in endpoints for route in each.routes()],
        exception_handlers={HTTPException: tell, MasktoolError: tell},
        lifespan=lifespan,
    )
    return Guard(starlette, service)
