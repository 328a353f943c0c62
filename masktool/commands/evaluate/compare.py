"""``masktool evaluate compare``: which method explains best for the same number of forward passes?"""

from __future__ import annotations

from pathlib import Path

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.methods import choose_methods
from masktool.commands.evaluate.modes import mode_options
from masktool.evaluation.parts.compare import BUDGETS, STABILITY_IMAGES, STEPS
from masktool.explainers.method import METHODS
from masktool.interface.parts.compare import MODES, NEEDS_TRAINING, CompareOptions


@click.command(name="compare")
@evaluation_options
@mode_options(MODES)
@click.option(
    "--explain-with",
    metavar="NAME",
    help="Masking mode that the maps are made with, whichever judge them.  [default: the first --mode]",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    help=f"What to compare, repeatable.  [default: all that MODEL allows, but {', '.join(NEEDS_TRAINING)}]",
)
@click.option(
    "--set",
    "assignments",
    metavar="OPTION=VALUE",
    multiple=True,
    help="An option of a method that holds at every budget, such as n_segments=30, repeatable.",
)
@click.option(
    "--budget",
    "budgets",
    type=int,
    multiple=True,
    default=BUDGETS,
    show_default=True,
    metavar="N",
    help="Most forward passes of a map, repeatable.",
)
@click.option(
    "--steps",
    "n_steps",
    type=click.IntRange(min=2),
    default=STEPS,
    show_default=True,
    metavar="N",
    help="Steps in which pixels are removed, in either order.",
)
@click.option(
    "--stability-images",
    type=click.IntRange(min=0),
    default=STABILITY_IMAGES,
    show_default=True,
    metavar="N",
    help="Make the maps of the first N images with a second seed too.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Measure in N processes, each with its share of the CPUs; each holds the models for itself.",
)
def command(
    request: EvaluationRequest,
    modes: tuple[str, ...],
    also: tuple[Path, ...],
    explain_with: str | None,
    methods: tuple[str, ...],
    assignments: tuple[str, ...],
    budgets: tuple[int, ...],
    n_steps: int,
    stability_images: int,
    jobs: int,
) -> int:
    """Compare all methods at equal budgets of forward passes.

    Explains the predicted class of every image in FOLDER at each --budget, and judges the maps through each --mode:
    symmetric relevance gain (SRG), insertion, deletion; on the objects of --boxes or --masks; over two seeds; by their
    time. What costs the same at every budget stands once. The tables say which methods these images do not tell apart;
    centre, random, random-cells, ones, edges are maps that know nothing of the model.
    """
    chosen = methods or tuple(name for name in METHODS if name not in NEEDS_TRAINING)
    options = choose_methods(chosen, None, assignments)
    return measure_part(
        request,
        CompareOptions(
            modes=modes,
            also=also,
            explain_with=explain_with,
            methods=options if methods or assignments else (),
            budgets=budgets,
            n_steps=n_steps,
            stability_images=stability_images,
        ),
        jobs,
    )
