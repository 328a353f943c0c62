"""The Open Inference Protocol v2: health, metadata, inference."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from masktool import __version__
from masktool.serving.incoming import BODY
from masktool.serving.refusals import RequestError
from masktool.serving.served_model import VERSION, CheckedRequest, ServedModel
from masktool.serving.service import LARGE_BODY, Service
from masktool.serving.tensors import HEADER_LENGTH, InferenceRequest, read_request, write_answer

EXTENSIONS = ("binary_tensor_data", "masktool_explanations")
BINARY = "application/octet-stream"


class ProtocolEndpoints:
    """The protocol's addresses.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.reading = asyncio.Semaphore()  # what Python makes of much JSON is many times as large: one at a time

    def routes(self) -> list[Route]:
        """Returns the routes."""
        routes = [
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route("/v2/models", self.models, methods=["GET"]),
        ]
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(model, self.model, methods=["GET"]),
                Route(model + "/ready", self.model_ready, methods=["GET"]),
                Route(model + "/infer", self.infer, methods=["POST"]),
            ]
        return routes

    async def server(self, request: Request) -> Response:  # noqa: ARG002 - as endpoints are called
        """Says who serves."""
        return JSONResponse({"name": "masktool", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:  # noqa: ARG002 - as endpoints are called
        """Says that the server runs."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002 - as endpoints are called
        """Says whether new requests are taken."""
        self.service.check_ready()
        return JSONResponse({"ready": True})

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - as endpoints are called
        """Lists the models."""
        return JSONResponse({"models": list(self.service.models)})

    def choose_model(self, request: Request) -> ServedModel:
        """Returns the model that an address names."""
        return self.service.find_model(request.path_params["name"], request.path_params.get("version"))

    async def model(self, request: Request) -> Response:
        """Says what a model takes and gives."""
        return JSONResponse(self.choose_model(request).describe())

    async def model_ready(self, request: Request) -> Response:
        """Says whether a model takes new requests."""
        model = self.choose_model(request)
        self.service.check_ready()
        return JSONResponse({"name": model.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Runs a model."""
        model = self.choose_model(request)
        body, length = request.scope[BODY], read_json_length(request)
        with model.told_to_clients():
            if len(body) < LARGE_BODY:
                asked, checked = read_and_check(model, body, length)
            else:
                async with self.reading:
                    asked, checked = await asyncio.to_thread(read_and_check, model, body, length)
            outputs = await self.service.infer(model, checked)
        if ragged := [name for name, value in outputs.items() if value.dtype == object]:
            raise RequestError(
                "outputs that have another length for each image",
                where=", ".join(ragged),
                fix="send one image at a time",
            )
        content, length = await asyncio.to_thread(write_answer, model.name, VERSION, asked, outputs)
        headers = {} if length is None else {HEADER_LENGTH: str(length)}
        return Response(content, HTTPStatus.OK, headers, "application/json" if length is None else BINARY)


def read_json_length(request: Request) -> int | None:
    """Returns the bytes of JSON in front of binary tensors; None where the body is JSON alone."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError("wrong header", where=HEADER_LENGTH, expected="a number of bytes", got=text[:40])
    return int(text)


def read_and_check(model: ServedModel, body: memoryview, length: int | None) -> tuple[InferenceRequest, CheckedRequest]:
    """Returns what is asked of a model, in the protocol's words and as the model can run it."""
    asked = read_request(body, length)
    return asked, model.check(asked)
