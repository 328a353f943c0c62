"""``masktool evaluate randomisation``: do explanations change when weights are randomised?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from masktool.commands import options
from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, finish_evaluation
from masktool.commands.evaluate.methods import choose_methods, method_options
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.overlays import FOLDER
from masktool.evaluation.parts.randomisation import Randomisation, RandomisedCopy
from masktool.exporters.randomise import ORDERS, Order, choose_layers, find_layers, read_exported, write_copies
from masktool.files import temporary_directory

STAGES = 8


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
    choices = choose_methods(methods, samples, assignments)
    with contextlib.ExitStack() as stack:
        (original,) = request.open_models(stack, None if mode is None else [mode], choices.gradient)
        folder = stack.enter_context(temporary_directory())
        part = Randomisation(
            original=original,
            stages=write_stages(original, folder, order, stages, request.seed),
            methods=choices.methods,
            seed=request.seed,
            batch=request.batch,
            overlays=request.directory / FOLDER,
            pictured=request.pictured(pictures),
        )
        return finish_evaluation(request, part)


def write_stages(original: NamedModel, folder: Path, order: Order, n_stages: int, seed: int) -> list[RandomisedCopy]:
    """Writes a randomised copy of a model for every stage."""
    session = original.session
    layers = find_layers(read_exported(session.path)[0])
    options.say(f"{len(layers)} layers with weights, from {layers[0].name} to {layers[-1].name}")
    stages = choose_layers(layers, order, n_stages)
    copies = write_copies(session.path, folder, stages, seed)
    return [RandomisedCopy.at(path, names, session) for path, names in zip(copies, stages, strict=True)]
