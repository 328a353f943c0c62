"""``masktool evaluate missingness``: what a network makes of images with parts removed, in each masking mode."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, finish_evaluation
from masktool.commands.evaluate.modes import mode_options, open_modes
from masktool.commands.evaluate.segments import segment_options
from masktool.datasets.hierarchy import read_hierarchy
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.named_models import count_classes
from masktool.evaluation.parts.missingness import CELLS, FRACTIONS, SALIENCY, Missingness
from masktool.evaluation.removal import ORDERS, Order, SegmentChoice, SegmentKind
from masktool.explainers.method import METHODS

MODES = ("layer", "partial", "black", "grey", "blur")
"""Both ways of masking, and the fills that the literature compares them with."""


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
    orders = tuple(dict.fromkeys(orders)) or ORDERS
    gradient = orders != ("random",) and METHODS.find(saliency).needs_gradient
    with contextlib.ExitStack() as stack:
        models = open_modes(request, stack, modes, also, MODES, gradient)
        session = models[0].session
        part = Missingness(
            modes=models,
            segments=SegmentChoice(segments, side, n_segments),
            orders=orders,
            fractions=tuple(sorted(set(fractions))) or FRACTIONS,
            saliency=MethodChoice(saliency),
            hierarchy=None
            if hierarchy is None
            else read_hierarchy(hierarchy, session.metadata.labels, count_classes(session)),
            seed=request.seed,
            batch=request.batch,
        )
        return finish_evaluation(request, part)
