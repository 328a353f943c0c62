"""Packaging a model for Triton: :func:`package_triton`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Unpack

from masktool.contract import Metadata
from masktool.deployment.triton_config import DEFAULT_QUEUE_DELAY, TritonDevice, TritonSettings
from masktool.deployment.triton_package import prepare_model, prepare_pair, write_models
from masktool.deployment.triton_repository import check_model_name
from masktool.interface.models import find_model
from masktool.interface.options import ExportOptions, ModelChoice, ModelLike, check_known
from masktool.messages import parameter
from masktool.option_checks import check_count
from masktool.progress import Say, log
from masktool.runtime.session import MaskedSession
from masktool.writable import check_writable

OWN_SUFFIXES = (".masked", ".explained")
"""Ends of the stems that ``masktool export`` gives, which say nothing to who asks a server."""


def package_triton(
    model: ModelLike | None,
    repository: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    explained: str | os.PathLike[str] | None = None,
    model_version: int | None = None,
    overwrite: bool = False,
    max_batch: int | None = None,
    queue_delay: int = DEFAULT_QUEUE_DELAY,
    instances: int = 1,
    device: TritonDevice = "auto",
    tensorrt: bool = False,
    say: Say = log,
    **options: Unpack[ExportOptions],
) -> list[Path]:
    """Writes a model into a model repository of NVIDIA's Triton Inference Server, for its ONNX Runtime backend.

    The file's bytes are copied as ``NAME/VERSION/model.onnx``, with the files of weights that it names beside it;
    ``config.pbtxt`` has its inputs and outputs, by name, type and shape. Every warm-up that stands in there was run
    once, on the CPU.

    Args:
        model: the model, as for :func:`masktool.load`; one that takes no mask yet is exported into the cache first.
        repository: the model repository; it is made where there is none.
        model_name: the model's name; None takes the file's, without what ``masktool export`` adds to it.
        explained: the path of a file that explains itself, of the same network: then three models are written, NAME,
            NAME_answer and NAME_explanation, of which NAME answers at once, and explains where a client asks for an
            output of the explanation.
        model_version: the number of the version to add; None writes the first one of a new model.
        overwrite: whether a version of that number, or without a number the whole model, is replaced.
        max_batch: the largest number of images that Triton puts together from several requests; 0 for none, so that a
            request holds whole arrays, optional inputs can be fed, and one image may meet many masks; None chooses:
            none where the file cannot share runs or has optional inputs.
        queue_delay: how many microseconds a request waits for others.
        instances: the number of copies of the model on each device.
        device: ``cpu``, ``gpu``, or ``auto`` for GPUs where Triton finds any.
        tensorrt: whether ONNX Runtime hands to TensorRT what that can run, in the file's own precision.
        say: a function that is called with what is done and what to know, a line at a time; by default it writes to the
            logger ``masktool`` (level INFO).
        **options: for a model that is not masked yet, the options of its export, see :class:`masktool.ExportOptions`.

    Returns:
        The folders of the models that were written.

    Raises:
        MasktoolError: there is no such model, it cannot be served so, or a folder of that name is there already.
    """
    check_known(options, "package_triton")
    settings = TritonSettings(max_batch, instances, device, tensorrt, queue_delay)
    if model_version is not None:
        check_count("model_version", model_version)
    if model_name is not None:
        check_model_name(model_name)
    check_writable(Path(repository), parameter("repository"))
    path = find_served_file(model, say, **options)
    with MaskedSession(path, providers="cpu") as session:
        name = model_name or choose_model_name(model, session.metadata)
        if explained is None:
            models = [prepare_model(session, name, settings, say).model]
        else:
            with MaskedSession(Path(explained), providers="cpu") as other:
                models = prepare_pair(session, other, name, settings, say)
    return write_models(Path(repository), models, model_version, overwrite=overwrite)


def find_served_file(model: ModelLike | None, say: Say, **options: Unpack[ExportOptions]) -> Path:
    """Returns the path of the exported file that serves a model, exporting it into the cache where need be."""
    if isinstance(model, MaskedSession):
        return model.path
    return find_model(ModelChoice(model, **options), say)


def choose_model_name(model: ModelLike | None, metadata: Metadata | None) -> str:
    """Returns the name under which a model is served where the user gives none: its file's, or its source's.

    Args:
        model: the model, as for :func:`masktool.load`.
        metadata: what the exported file says about itself; None where the model is named by a text.
    """
    named = model if isinstance(model, str | os.PathLike) else "" if metadata is None else metadata.source
    text = os.fspath(named)
    stem = text.rpartition(":")[2] if not Path(text).suffix else Path(text).stem
    for suffix in OWN_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:100] or "model"
