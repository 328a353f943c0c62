"""``masktool calibrate``: corrects the class scores of an exported file where something is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from masktool.commands import options
from masktool.commands.export import describe_parity, document_export
from masktool.commands.info import describe_calibration
from masktool.commands.source_options import choose_output
from masktool.printable import describe_bytes

if TYPE_CHECKING:
    from masktool.exporters.result import Export

SUFFIX = ".calibrated.onnx"
N_MASKS, N_FOLDS = 20, 5
"""Defaults, as of :func:`masktool.calibrate`; a test compares them."""


@click.command("calibrate")
@click.argument("file")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Photographs like those that FILE will see, 30 and more; no labels are needed.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: FILE's name.calibrated.onnx]"
)
@click.option(
    "--masks",
    "masks_per_image",
    type=click.IntRange(min=1),
    default=N_MASKS,
    show_default=True,
    metavar="N",
    help="Random masks of each photograph, which remove from one part in N to everything.",
)
@click.option(
    "--side",
    "cell_sides",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="PIXELS",
    help="Side of the cells that masks are made of; may be repeated.  [default: a 16th, an 8th and a quarter of the "
    "shorter side, in turn]",
)
@click.option(
    "--folds",
    "n_folds",
    type=click.IntRange(min=2),
    default=N_FOLDS,
    show_default=True,
    metavar="N",
    help="Folds of the photographs: the gain is that of each fold by what the others choose and fit.",
)
@options.seed_option
@options.batch_option
@options.provider_option
@options.provider_options_option
@options.threads_option
@options.json_option
def command(
    file: str,
    images: Path,
    output: Path | None,
    masks_per_image: int,
    cell_sides: tuple[int, ...],
    n_folds: int,
    seed: int,
    batch: int | None,
    provider: str,
    provider_options: dict[str, str],
    threads: int | None,
    as_json: bool,
) -> None:
    """Correct a file's class scores where something is missing.

    FILE is one that `masktool export` wrote, in any masking mode. Its scores z become A z + b wherever a value of the
    mask is below 1, fitted so that predictions behind random masks are near those for the whole photographs; with
    nothing missing they stay the same bits. Where held-out photographs do not gain, nothing is written (exit code 2).
    """
    from masktool.interface.calibrate import calibrate

    target = choose_output(file, output, SUFFIX)
    written = calibrate(
        file,
        images,
        target,
        masks_per_image=masks_per_image,
        cell_sides=cell_sides,
        n_folds=n_folds,
        seed=seed,
        perturbations_per_eval=batch,
        providers=provider,
        threads=threads,
        provider_options=provider_options,
        progress=options.progress,
        say=options.say,
    )
    for line in conclude_calibration(written):
        options.say(line)
    if as_json:
        click.echo(json.dumps(document_export(written), indent=2))
    else:
        options.print_path(target)


def conclude_calibration(written: Export) -> Iterator[str]:
    """Yields what was fitted, what it gains and what was written, a line each."""
    calibration = written.metadata.calibration
    yield from describe_calibration(None if calibration is None else dict(calibration))
    yield from describe_parity(written.metadata.parity)
    yield from ("note: " + note for note in written.notes)
    yield f"wrote {written.path} ({describe_bytes(written.n_bytes)})"
