"""Explanations of pictures, as jobs: submit, ask how far it is, fetch, cancel."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from masktool.extras import require_extra
from masktool.serving.explanations import ExplanationTask, check_task
from masktool.serving.incoming import BODY
from masktool.serving.jobs import Job, JobState
from masktool.serving.refusals import RequestError
from masktool.serving.service import Service
from masktool.serving.tensors import read_json_object

FIELDS = ("method", "target", "options")
"""What stands beside the picture: in the address's query, or as fields of the form."""
PICTURE_FIELD = "picture"
MOST_PARTS = 8
PNG, JSON = "image/png", "application/json"


class JobEndpoints:
    """The addresses of explanations.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        """Returns the routes."""
        base = "/v2/models/{name}/explanations"
        return [
            Route(base, self.submit, methods=["POST"]),
            Route(base + "/{identifier}", self.status, methods=["GET"]),
            Route(base + "/{identifier}", self.cancel, methods=["DELETE"]),
            Route(base + "/{identifier}/result", self.result, methods=["GET"]),
        ]

    async def submit(self, request: Request) -> Response:
        """Takes a picture and puts its explanation into the queue."""
        model = self.service.find_model(request.path_params["name"])
        picture, fields = await read_submission(request)
        options = read_options(fields.get("options"))
        target = read_target(fields.get("target"))
        with model.told_to_clients():
            task = await asyncio.to_thread(check_task, model, picture, fields.get("method"), target, options)
        job = self.service.jobs.submit(task, model.name, len(picture))
        place = address_of(model.name, job)
        return JSONResponse(self.describe(model.name, job), HTTPStatus.ACCEPTED, {"location": place})

    def find(self, request: Request) -> Job[ExplanationTask]:
        """Returns the job that an address names."""
        model = self.service.find_model(request.path_params["name"])
        return self.service.jobs.find(request.path_params["identifier"], model.name)

    async def status(self, request: Request) -> Response:
        """Says how a job stands."""
        return JSONResponse(self.describe(request.path_params["name"], self.find(request)))

    async def cancel(self, request: Request) -> Response:
        """Cancels a job; one that has ended keeps its state, and its result is dropped."""
        job = self.find(request)
        self.service.jobs.cancel(job)
        return JSONResponse(self.describe(request.path_params["name"], job))

    async def result(self, request: Request) -> Response:
        """Sends the explanation: its document, or the picture where the client would rather have that."""
        job = self.find(request)
        if job.state is JobState.FAILED:
            raise RequestError("the explanation failed", status=HTTPStatus.UNPROCESSABLE_ENTITY, got=job.error)
        if job.state is not JobState.DONE or not job.result:
            waiting = not job.state.ended
            raise RequestError(
                "there is no result",
                status=HTTPStatus.CONFLICT if waiting else HTTPStatus.GONE,
                retry_after=1 if waiting else None,
                got=job.state.value if waiting else "cancelled, or dropped",
                fix="ask for the status until it is done" if waiting else "ask for the explanation again",
            )
        kind, media = ("png", PNG) if prefers_png(request.headers.get("accept", "")) else ("json", JSON)
        return Response(job.result[kind], media_type=media)

    def describe(self, model: str, job: Job[ExplanationTask]) -> dict[str, Any]:
        """Returns how a job stands, as a document."""
        place = address_of(model, job)
        jobs = self.service.jobs
        return {
            "id": job.identifier,
            "model": model,
            "state": job.state.value,
            "ahead": jobs.place_of(job),
            "progress": {"description": job.description, "done": job.done, "total": job.total, "note": job.note},
            "error": job.error,
            "status": place,
            "result": f"{place}/result",
            "expires_in": jobs.seconds_left(job),
        }


def address_of(model: str, job: Job[ExplanationTask]) -> str:
    """Returns the address of a job."""
    return f"/v2/models/{model}/explanations/{job.identifier}"


async def read_submission(request: Request) -> tuple[bytes, Mapping[str, str]]:
    """Returns the picture that a request holds, and the fields beside it.

    Raises:
        RequestError: there is no picture, or a field that is not known or is given twice.
    """
    given = request.query_params.multi_items()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        picture, more = await read_form(request)
        given += more
    else:
        picture = bytes(request.scope[BODY])
    fields = dict(given)
    if len(fields) < len(given):
        twice = next(name for name, count in Counter(name for name, _ in given).items() if count > 1)
        raise RequestError("a field that is given twice", got=twice[:100], fix="give it once")
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise RequestError("unknown field", expected=f"some of {', '.join(FIELDS)}", got=", ".join(unknown)[:100])
    if not picture:
        fix = f"send it as the body, or as the file {PICTURE_FIELD!r} of a form"
        raise RequestError("no picture", fix=fix)
    return picture, fields


async def read_form(request: Request) -> tuple[bytes, list[tuple[str, str]]]:
    """Returns the picture in a form, and its other fields."""
    picture, fields = b"", []
    try:
        with require_extra("reading a form", "serve"):
            async with request.form(max_files=1, max_fields=MOST_PARTS) as form:
                for name, value in form.multi_items():
                    if not isinstance(value, UploadFile):
                        fields.append((name, value))
                    elif name == PICTURE_FIELD:
                        picture = await value.read()
                    else:
                        raise RequestError("unknown file in the form", expected=PICTURE_FIELD, got=name[:100])
    except HTTPException as error:  # what starlette makes of a damaged form
        raise RequestError("a form that cannot be read", got=error.detail) from error
    return picture, fields


def read_options(text: str | None) -> Mapping[str, Any]:
    """Returns the options of a job from their JSON."""
    return {} if text is None else read_json_object(text.encode("utf-8", "replace"), "options")


def read_target(text: str | None) -> str | int | None:
    """Returns the class to explain: an index, a label, or None for the top one."""
    if text is None or text == "":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if type(value) is int else text


def prefers_png(accept: str) -> bool:
    """Tells whether a client would rather have a picture than a document: the first of the two that it names."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    kinds = [kind for kind in named if kind in (PNG, "image/*", JSON, "application/*", "*/*")]
    return bool(kinds) and kinds[0] in (PNG, "image/*")
