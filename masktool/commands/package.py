"""``masktool package``: writes what serving systems read of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from masktool.commands.options import baseline_option, in_order, masking_option, print_path, say
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


@click.command("package")
@click.argument("model", metavar="MODEL")
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write MODEL into this model repository of NVIDIA's Triton Inference Server.",
)
@click.option("--name", "model_name", metavar="NAME", help="Name to serve MODEL under.  [default: its file's]")
@in_order(TRITON_OPTIONS)
@in_order(READING_OPTIONS)
@masking_option
@baseline_option
@labels_option
def command(
    model: str,
    triton: Path | None,
    model_name: str | None,
    explained: Path | None,
    model_version: int | None,
    overwrite: bool,
    max_batch: int | None,
    queue_delay: int,
    instances: int,
    device: Any,
    tensorrt: bool,
    preprocess: str | None,
    **options: Any,
) -> None:
    """Write what serving systems read of a model.

    MODEL is what `masktool export` wrote, with a mask or explaining itself, or anything that it takes: that is exported
    into a cache first. Prints the folders that were written.
    """
    from masktool.interface.package_triton import package_triton

    if triton is None:
        raise MasktoolError("nothing to write", fix="add --triton DIR")
    written = package_triton(
        model,
        triton,
        model_name=model_name,
        explained=explained,
        model_version=model_version,
        overwrite=overwrite,
        max_batch=max_batch,
        queue_delay=queue_delay,
        instances=instances,
        device=device,
        tensorrt=tensorrt,
        say=say,
        preprocessing=preprocess,
        **options,
    )
    for folder in written:
        print_path(folder)
