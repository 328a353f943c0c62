"""``masktool evaluate randomisation``: do explanations change when weights are randomised?"""

from __future__ import annotations

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.methods import choose_methods, method_options
from masktool.exporters.randomise import ORDERS, Order
from masktool.interface.parts.randomisation import STAGES, RandomisationOptions


@click.command(name="randomisation")
@evaluation_options
@click.option(
    "--mode",
    metavar="NAME",
    help="Masking mode: layer, partial or a baseline of fill.  [default: of an exported MODEL its own, else layer]",
)
@method_options
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default=ORDERS[0],
    show_default=True,
    help="Randomise from the last layer to the first, each stage adding to the one before, or one layer at a time.",
)
@click.option(
    "--stages",
    type=click.IntRange(min=1),
    default=STAGES,
    show_default=True,
    metavar="N",
    help="At how many of the layers to explain, evenly over the network.",
)
def command(
    request: EvaluationRequest,
    mode: str | None,
    methods: tuple[str, ...],
    samples: int | None,
    assignments: tuple[str, ...],
    pictures: int,
    order: Order,
    stages: int,
) -> int:
    """Check that explanations change when weights are randomised.

    Redraws the weights of MODEL layer by layer, explains the images in FOLDER through each copy, and compares the maps
    with the original's: Spearman's rank correlation, with and without absolute values, and SSIM. The copies stand in a
    temporary directory while the command runs.
    """
    chosen = choose_methods(methods, samples, assignments)
    return measure_part(
        request, RandomisationOptions(mode=mode, methods=chosen, order=order, stages=stages, pictures=pictures)
    )
