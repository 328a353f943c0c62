"""``masktool evaluate report``: everything that was measured, on one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from masktool.commands.options import print_path
from masktool.evaluation.report import IMAGES, write_report


@click.command(name="report")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: DIR/report.html]",
)
@click.option(
    "--images",
    type=click.IntRange(min=0),
    default=IMAGES,
    show_default=True,
    metavar="N",
    help="Show sample explanations of at most so many images.",
)
def command(directory: Path, output: Path | None, images: int) -> None:
    """Make one HTML page of everything that was measured.

    DIR is the directory that the other commands wrote into. The page holds their tables, charts, notes, problems and
    settings, and samples of the explanations; it needs no network. Prints its path.
    """
    print_path(write_report(directory, output, images))
