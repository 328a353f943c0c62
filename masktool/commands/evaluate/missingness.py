"""``masktool evaluate missingness``: what a network makes of images with parts removed, in each masking mode."""

from __future__ import annotations

from pathlib import Path

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.modes import mode_options
from masktool.commands.evaluate.segments import segment_options
from masktool.evaluation.parts.missingness import CELLS, FRACTIONS, SALIENCY
from masktool.evaluation.removal import ORDERS, Order, SegmentKind
from masktool.interface.parts.missingness import MODES, MissingnessOptions


@click.command(name="missingness")
@evaluation_options
@mode_options(MODES)
@segment_options(CELLS)
@click.option(
    "--order",
    "orders",
    type=click.Choice(ORDERS),
    multiple=True,
    help="In which segments go, repeatable.  [default: all three]",
)
@click.option(
    "--fraction",
    "fractions",
    type=click.FloatRange(0, 1),
    multiple=True,
    metavar="F",
    help="Of the segments to remove, repeatable.  [default: 0, 0.1, ... 1]",
)
@click.option(
    "--saliency",
    default=SALIENCY.name,
    show_default=True,
    metavar="METHOD",
    help="Behind the salient orders, in the first mode. One that masks nothing, such as gradient, favours none.",
)
@click.option("--hierarchy", type=click.Path(path_type=Path), metavar="FILE", help="Of classes: JSON {child: parent}.")
def command(
    request: EvaluationRequest,
    modes: tuple[str, ...],
    also: tuple[Path, ...],
    segments: SegmentKind,
    side: int | None,
    n_segments: int,
    orders: tuple[Order, ...],
    fractions: tuple[float, ...],
    saliency: str,
    hierarchy: Path | None,
) -> int:
    """Measure what removing parts of images does to predictions.

    MODEL is compared in several masking modes on the images in FOLDER: how many classes it still tells apart (class
    entropy), how many predictions stay as they were, how many are right where --labels are given, and how alike the
    classes stay where a --hierarchy is given. With --masks or --boxes of the objects also whether the outline of what
    is missing tells the class.
    """
    return measure_part(
        request,
        MissingnessOptions(
            modes=modes,
            also=also,
            segments=segments,
            side=side,
            n_segments=n_segments,
            orders=orders or ORDERS,
            fractions=fractions or FRACTIONS,
            saliency=saliency,
            hierarchy=hierarchy,
        ),
    )
