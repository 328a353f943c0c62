"""``masktool package``: writes what serving systems read of a model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from masktool.commands.options import baseline_option, in_order, masking_option, print_path, rule_option, say
from masktool.commands.source_options import READING_OPTIONS, labels_option
from masktool.deployment.triton_config import DEFAULT_QUEUE_DELAY, TritonDevice
from masktool.errors import MasktoolError

TRITON_OPTIONS = (
    click.option(
        "--explained",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="With --triton: a file that explains itself, of the same network. NAME then answers at once, and explains "
        "where a client asks for an output of the explanation.",
    ),
    click.option(
        "--model-version",
        type=click.IntRange(min=1),
        metavar="N",
        help="Version to add to a model that is there.  [default: 1, of a new model]",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace what is there: the model with all its versions, or with --model-version that version.",
    ),
    click.option(
        "--max-batch",
        type=click.IntRange(min=0),
        metavar="N",
        help="Most images that Triton puts into a run from several requests. 0: a request holds whole arrays, so that "
        "optional inputs can be fed and one image meets many masks.  [default: 0 where the file takes one image at a "
        "time or has optional inputs, else by the images' size]",
    ),
    click.option(
        "--queue-delay",
        type=click.IntRange(min=0),
        default=DEFAULT_QUEUE_DELAY,
        show_default=True,
        metavar="MICROSECONDS",
        help="How long a request waits for others.",
    ),
    click.option(
        "--instances",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Copies of the model on each device.",
    ),
    click.option(
        "--device",
        type=click.Choice(get_args(TritonDevice)),
        default="auto",
        show_default=True,
        help="Where the model runs; auto takes GPUs where there are any.",
    ),
    click.option(
        "--tensorrt",
        is_flag=True,
        help="Have ONNX Runtime hand to TensorRT what that can run, in the file's precision.",
    ),
)


KSERVE_OPTIONS = (
    click.option(
        "--storage-uri",
        metavar="URI",
        help="With --kserve: where the model repository of --triton was copied to, which KServe's Triton then serves.",
    ),
    click.option(
        "--image",
        "server_image",
        metavar="IMAGE",
        help="With --kserve: the image that was built from --docker, to run in place of Triton.",
    ),
    click.option("--cpu", default="1", show_default=True, metavar="AMOUNT", help="With --kserve: processors."),
    click.option("--memory", default="2Gi", show_default=True, metavar="AMOUNT", help="With --kserve: memory."),
    click.option(
        "--gpus", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="With --kserve: GPUs."
    ),
)
OF_TRITON = ("explained", "model_version", "max_batch", "queue_delay", "instances", "device", "tensorrt")
OF_KSERVE = ("storage_uri", "server_image", "cpu", "memory", "gpus")
"""Parameters that only one of the packages has a use for."""


@click.command("package")
@click.argument("model", metavar="MODEL")
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write MODEL into this model repository of NVIDIA's Triton Inference Server.",
)
@click.option(
    "--kserve",
    "manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write KServe's manifest of the service, an InferenceService.",
)
@click.option(
    "--docker",
    "docker_context",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the folder that an image of `masktool serve` with MODEL is built from.",
)
@click.option("--name", "model_name", metavar="NAME", help="Name to serve MODEL under.  [default: its file's]")
@in_order(TRITON_OPTIONS)
@in_order(KSERVE_OPTIONS)
@in_order(READING_OPTIONS)
@masking_option
@rule_option
@baseline_option
@labels_option
@click.pass_context
def command(
    context: click.Context,
    model: str,
    triton: Path | None,
    manifest: Path | None,
    docker_context: Path | None,
    model_name: str | None,
    overwrite: bool,
    preprocess: str | None,
    **options: Any,
) -> None:
    """Write what serving systems read of a model.

    MODEL is what `masktool export` wrote, with a mask or explaining itself, or anything that it takes: that is exported
    into a cache first. Prints the paths of what was written.
    """
    from masktool.interface.package_server import package_docker, package_kserve
    from masktool.interface.package_triton import package_triton

    if triton is manifest is docker_context is None:
        raise MasktoolError("nothing to write", fix="add --triton DIR, --kserve FILE or --docker DIR")
    for_triton, for_kserve = ({name: options.pop(name) for name in names} for names in (OF_TRITON, OF_KSERVE))
    refuse_unused(context, OF_TRITON if triton is None else (), "--triton DIR")
    refuse_unused(context, OF_KSERVE if manifest is None else (), "--kserve FILE")
    named: dict[str, Any] = {"model_name": model_name, "say": say}
    shared = named | {"overwrite": overwrite, "preprocessing": preprocess, **options}
    if manifest is not None:
        print_path(package_kserve(model, manifest, **for_kserve, **named))
    if triton is not None:
        for folder in package_triton(model, triton, **for_triton, **shared):
            print_path(folder)
    if docker_context is not None:
        print_path(package_docker(model, docker_context, **shared))


def refuse_unused(context: click.Context, names: Collection[str], needed: str) -> None:
    """Raises MasktoolError where an option was typed whose parameter has no use without another option."""
    for each in context.command.params:
        typed = context.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
        if typed and each.name in names:
            raise MasktoolError("only with another option", got=each.opts[0], fix=f"add {needed}, or leave that out")
