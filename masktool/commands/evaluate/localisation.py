"""``masktool evaluate localisation``: do explanations find the objects?"""

from __future__ import annotations

from pathlib import Path

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.methods import choose_methods, method_options
from masktool.commands.evaluate.modes import mode_options
from masktool.interface.parts.localisation import MODES, LocalisationOptions


@click.command(name="localisation")
@evaluation_options
@mode_options(MODES)
@method_options
@click.option("--correct-only", is_flag=True, help="Leave out images that the model gets wrong.")
def command(
    request: EvaluationRequest,
    modes: tuple[str, ...],
    also: tuple[Path, ...],
    methods: tuple[str, ...],
    samples: int | None,
    assignments: tuple[str, ...],
    pictures: int,
    correct_only: bool,
) -> int:
    """Measure whether explanations find the objects.

    Explains the true class of every image in FOLDER, and judges the maps at the input of MODEL against --boxes or
    --masks: pointing game, energy, PxAP, F1, localisation error (LE, OM) and MaxBoxAcc. Beside every method stand maps
    that know nothing of the model: centre, random, random-cells, ones, edges.
    """
    chosen = choose_methods(methods, samples, assignments)
    return measure_part(
        request,
        LocalisationOptions(modes=modes, also=also, methods=chosen, correct_only=correct_only, pictures=pictures),
    )
