"""What an explanation job is asked, and how it is made: a picture and a method in, a document and a picture out."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from masktool.contract import show
from masktool.errors import MasktoolError
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS
from masktool.explainers.method import build_method
from masktool.explainers.stopping import STOPPING_ARGUMENTS, Stopping
from masktool.explainers.target import TargetLike
from masktool.interface.explain import explain, refuse_settled_options
from masktool.limits import limit
from masktool.progress import Progress
from masktool.runtime.images import read_encoded
from masktool.runtime.pictures import open_encoded
from masktool.serving.refusals import RequestError
from masktool.serving.served_model import ServedModel

PICTURE = "the picture"
"""What errors call the bytes that came."""
MOST_STEPS = 100_000
"""Largest whole number that an option may be, such as a number of samples: clients share the server's memory."""
LONGEST_TEXT = 1000
"""Characters of a text among the options."""
NOT_ASKED = ("inputs", "input_size", "perturbations_per_eval", "reference", "region")
"""Arguments of :func:`masktool.explain` that a job does not take: among them those that may be paths, which are files
of the server's and none of a client's business."""
OF_EXPLAIN = frozenset({*SHARED_ARGUMENTS, *STOPPING_ARGUMENTS, "n_samples"} - set(NOT_ASKED))


@dataclasses.dataclass(frozen=True)
class ExplanationTask:
    """An explanation that a client asks for.

    Attributes:
        model: the model.
        picture: bytes of an image file.
        method: name of the method.
        target: class that is explained.
        options: options of the method, and arguments of :func:`masktool.explain`.
    """

    model: ServedModel
    picture: bytes
    method: str
    target: TargetLike
    options: Mapping[str, Any]


def check_task(
    model: ServedModel, picture: bytes, method: str | None, target: TargetLike, options: Mapping[str, Any]
) -> ExplanationTask:
    """Returns a task whose faults are found now and not when its turn comes.

    Raises:
        MasktoolError: the picture cannot be opened, or the method, the target or an option cannot be used.
    """
    name = model.methods[0] if method is None else method
    if name not in model.methods:
        build_method(name, {})  # says so where there is no such method at all
        raise RequestError(
            "a method that the file of this model cannot serve",
            where=model.name,
            expected=" | ".join(model.methods),
            got=name,
            fix="serve a file that holds what it needs: gradients, or a head",
        )
    check_job_options(options)
    if target is not None and not isinstance(target, str | int | tuple):
        raise RequestError("wrong target", expected="top, an index or a label", got=show(target))
    own = {key: value for key, value in options.items() if key not in OF_EXPLAIN}
    build_method(name, own, options.get("n_samples"))
    stopping = Stopping(**{key: options[key] for key in STOPPING_ARGUMENTS if key in options})
    refuse_settled_options(model.session.metadata, model.name, [*own, *stopping.given])
    with open_encoded(io.BytesIO(picture), PICTURE):  # its header; the pixels when its turn comes
        pass
    return ExplanationTask(model, picture, name, target, options)


def check_job_options(options: Mapping[str, Any]) -> None:
    """Raises RequestError for options that are no single values, or numbers that would take the server's memory."""
    for name, value in options.items():
        if name in NOT_ASKED:
            raise RequestError("an option that jobs do not take", where=name, fix="leave it out")
        members = value if isinstance(value, list) else [value]
        for each in members:
            if isinstance(each, dict | list):
                raise RequestError("an option that is no single value", where=name, got=show(value))
            if isinstance(each, int | float) and not abs(each) <= MOST_STEPS:
                raise RequestError(
                    "an option out of range", where=name, expected=f"numbers up to {MOST_STEPS}", got=show(each)
                )
            if isinstance(each, str) and len(each) > LONGEST_TEXT:
                expected = f"at most {LONGEST_TEXT} characters"
                raise RequestError("an option that is too long", where=name, expected=expected, got=len(each))


def make_explanation(task: ExplanationTask, progress: Progress) -> Mapping[str, bytes]:
    """Explains, and returns the document of ``masktool explain --json`` and the picture, as bytes.

    Raises:
        MasktoolError: the picture is damaged, or cannot be explained.
    """
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in task.options.items()
    }
    try:
        with progress("reading the picture", 0):
            photograph = read_encoded(task.picture, PICTURE)
        if photograph.width * photograph.height > limit("json"):
            raise RequestError(
                "a picture whose map would be too large a document",
                expected=f"at most {limit('json')} pixels",
                got=photograph.width * photograph.height,
                fix="scale it down",
            )
        found = explain(
            task.model.session, photograph, task.method, task.target, progress=progress, say=lambda _: None, **options
        )
        with progress("drawing", 0) as advance:
            document = (found.to_json() + "\n").encode()
            advance(0)
            stream = io.BytesIO()
            found.plot().save(stream, format="PNG")
            return {"json": document, "png": stream.getvalue()}
    except MasktoolError as error:
        raise MasktoolError(task.model.hide_path(str(error.message))) from error
