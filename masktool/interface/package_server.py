"""Packaging masktool's own server, and KServe's manifest: :func:`package_docker` and :func:`package_kserve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from masktool.deployment.kserve_manifest import ServiceSettings, make_service_name, write_manifest
from masktool.deployment.server_image import check_image_folder, write_image_folder
from masktool.deployment.triton_repository import check_model_name
from masktool.errors import MasktoolError
from masktool.exported_files import metadata_of
from masktool.files import atomic_path
from masktool.interface.options import ExportOptions, ModelLike, check_known
from masktool.interface.package_triton import choose_model_name, find_served_file
from masktool.messages import parameter
from masktool.option_checks import check_count
from masktool.progress import Say, log
from masktool.writable import check_writable


def package_docker(
    model: ModelLike | None,
    docker_context: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    overwrite: bool = False,
    say: Say = log,
    **options: Unpack[ExportOptions],
) -> Path:
    """Writes the folder that an image of ``masktool serve`` with a model is built from.

    Its Dockerfile has the base image by its tag, this version of masktool, all its packages in the versions that are
    installed here, a user who is not root, and a health check.

    Args:
        model: the model, as for :func:`masktool.load`; one that takes no mask yet is exported into the cache first.
        docker_context: the folder to write, which must not be there.
        model_name: the name to serve the model under; None takes the file's, without what ``masktool export`` adds.
        overwrite: whether a folder that was written so is replaced.
        say: a function that is called with what is done and what to know, a line at a time.
        **options: for a model that is not masked yet, the options of its export, see :class:`masktool.ExportOptions`.

    Returns:
        The folder.

    Raises:
        MasktoolError: there is no such model, or the folder is there already or cannot be written.
    """
    check_known(options, "package_docker")
    folder = Path(docker_context)
    if model_name is not None:
        check_model_name(model_name)
    check_image_folder(folder, overwrite=overwrite)
    check_writable(folder.parent, parameter("docker_context"))
    path = find_served_file(model, say, **options)
    metadata = metadata_of(path)
    assert metadata is not None  # find_served_file returns what masktool exported
    name = model_name or choose_model_name(model, metadata)
    pins = write_image_folder(folder, check_model_name(name), path, metadata, overwrite=overwrite)
    say(f"{name}: {len(pins.lines)} packages pinned to the versions that are installed here")
    if pins.missing:
        say(f"note: not installed here, and open where the image needs it: {', '.join(pins.missing)}")
    return folder


def package_kserve(
    model: ModelLike | None,
    manifest: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    storage_uri: str | None = None,
    server_image: str | None = None,
    cpu: str = "1",
    memory: str = "2Gi",
    gpus: int = 0,
    say: Say = log,
) -> Path:
    """Writes KServe's manifest of a service, an InferenceService that speaks the Open Inference Protocol v2.

    Args:
        model: the model, whose name alone matters here.
        manifest: the file to write.
        model_name: the service's name; None takes the file's, spelled as Kubernetes wants it.
        storage_uri: the address to which the model repository was copied that :func:`masktool.package_triton` wrote:
            the service runs Triton.
        server_image: the image that was built from what :func:`masktool.package_docker` wrote: the service runs that.
        cpu: the processors, as Kubernetes writes amounts: ``500m`` or ``2``.
        memory: the memory, as Kubernetes writes amounts: ``2Gi``.
        gpus: the number of GPUs.
        say: a function that is called with what is done and what to know, a line at a time.

    Returns:
        The file.

    Raises:
        MasktoolError: neither or both of ``storage_uri`` and ``server_image`` are given, a value cannot stand in a
            manifest, or the file cannot be written.
    """
    check_count("gpus", gpus, 0)
    name = model_name or make_service_name(name_without_file(model))
    settings = ServiceSettings(name, storage_uri, server_image, cpu, memory, gpus)
    with atomic_path(manifest) as temporary:
        temporary.write_text(write_manifest(settings), encoding="utf-8")
    say(f"{name}: {'Triton on ' + storage_uri if storage_uri else server_image}, {cpu} CPU, {memory}, {gpus} GPUs")
    return Path(manifest)


def name_without_file(model: ModelLike | None) -> str:
    """Returns the name under which a model is served, which need not be there to be named."""
    if isinstance(model, str | os.PathLike):
        return choose_model_name(model, None)
    raise MasktoolError("a model in memory has no name", fix="give one with " + parameter("model_name"))
