"""``masktool train-masker``: trains a masking model beside a classifier and writes both as one ONNX file."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands import options
from masktool.commands.export_check import write_figure
from masktool.commands.size_option import input_size_option
from masktool.commands.source_options import (
    arch_option,
    channels_option,
    choose_output,
    class_output_option,
    labels_option,
    mean_option,
    preprocess_option,
    read_preset,
    std_option,
    trust_code_option,
)
from masktool.commands.training_options import take_training_settings, training_options
from masktool.contract import Size
from masktool.printable import describe_bytes

if TYPE_CHECKING:
    from masktool.exporters.result import Export

SUFFIX = ".masker.onnx"
MASKINGS = ("fill", "layer")


@click.command("train-masker")
@click.argument("model")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER|FILE.csv",
    help="Pictures: a folder with one subfolder per class, or a file with one line FILE,CLASS per picture.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: MODEL's name.masker.onnx]"
)
@arch_option
@input_size_option
@channels_option
@preprocess_option
@mean_option
@std_option
@labels_option
@class_output_option
@trust_code_option
@click.option(
    "--masking",
    type=click.Choice(MASKINGS),
    default=MASKINGS[0],
    show_default=True,
    help="How the mask of the written file acts: on the input alone (fill) or through every layer (layer).",
)
@options.rule_option
@training_options
@click.option(
    "--workers",
    callback=options.read_auto(0),
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Processes that read pictures; auto takes none beside a CPU, some for a GPU.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the training there, after each epoch and when it is interrupted.  [default: OUTPUT.checkpoint]",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, where there is one.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one JSON document per step: the loss and all its terms, the masks' mean area, accuracies.",
)
@options.json_option
def command(
    model: str,
    data: Path,
    output: Path | None,
    arch: str | None,
    input_size: Size | None,
    channels: int | None,
    preprocess: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    labels: Path | None,
    class_output: str | None,
    trust_code: bool,
    masking: Any,
    rule: Any,
    workers: int | None,
    checkpoint: Path | None,
    resume: bool,
    log: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Train a model that explains a CNN in one forward pass.

    MODEL is a torch model: torchvision:NAME or timm:NAME with its hub weights, a state dict or .safetensors with
    --arch, a torch.export .pt2 (whose weights stay as they are), or (--trust-code) a pickled module. The file that
    is written classifies as MODEL does and gives a saliency map from the same pass. Interrupted, the training is kept;
    the same command with --resume goes on and ends with the same losses.
    """
    from masktool.exporters.torch_sources.module_export import require_torch

    settings = take_training_settings(values)
    target = choose_output(model, output, SUFFIX)
    require_torch("training a masking model")
    from masktool.maskers.train import train_masker

    trained = train_masker(
        model,
        data,
        target,
        arch=arch,
        trust_code=trust_code,
        input_size=input_size,
        channels=channels,
        preprocessing=read_preset(preprocess, mean, std),
        labels=labels,
        class_output=class_output,
        settings=settings,
        masking=masking,
        rule=rule,
        workers=workers,
        checkpoint=checkpoint,
        resume=resume,
        log=log,
        progress=options.progress,
        say=options.say,
    )
    for line in conclude(trained):
        options.say(line)
    if as_json:
        click.echo(json.dumps(document_training(trained), indent=2))
    else:
        options.print_path(target)


def conclude(trained: Export) -> Iterator[str]:
    """Yields what was written, and how to use the written file, a line each."""
    metadata, path = trained.metadata, trained.path
    yield f"parity: {', '.join(f'{name} {write_figure(figure)}' for name, figure in metadata.parity.items())}"
    if metadata.masker and metadata.masker["settings"]["classifier"] == "ca":
        yield "note: the file's classifier is the one that was trained alongside; its scores are not MODEL's"
    yield f"wrote {path} ({describe_bytes(trained.n_bytes)})"
    yield f"next: masktool explain IMAGE -m {shlex.quote(str(path))} --method masker"


def document_training(trained: Export) -> dict[str, Any]:
    """Returns a training's export as a document for programs, ready for JSON."""
    metadata = trained.metadata
    return {
        "path": str(trained.path),
        "bytes": trained.n_bytes,
        "figures": metadata.masker["figures"] if metadata.masker else None,
        "metadata": dataclasses.asdict(metadata),
    }
