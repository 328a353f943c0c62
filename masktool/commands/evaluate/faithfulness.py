"""``masktool evaluate faithfulness``: do explanations say what the model relies on?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.methods import choose_methods, method_options
from masktool.commands.evaluate.modes import mode_options
from masktool.commands.explain_options import parse_assignments
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.metric import METRICS
from masktool.evaluation.parts.faithfulness import TARGET_RULES, TargetRule
from masktool.interface.part_options import OptionsByName
from masktool.interface.parts.faithfulness import DEFAULT_METRICS, MODES, FaithfulnessOptions


@click.command(name="faithfulness")
@evaluation_options
@mode_options(MODES)
@click.option(
    "--explain-with",
    metavar="NAME",
    help="Masking mode that the maps are made with, whichever they are measured through.  [default: the first --mode]",
)
@method_options
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(list(METRICS)),
    multiple=True,
    default=DEFAULT_METRICS,
    show_default=True,
    help="What to measure, repeatable.",
)
@click.option(
    "--metric-set",
    "metric_assignments",
    metavar="METRIC.OPTION=VALUE",
    multiple=True,
    help="An option of a metric, such as insertion-deletion.n_steps=30, repeatable.",
)
@click.option(
    "--target",
    type=click.Choice(TARGET_RULES),
    default="top",
    show_default=True,
    help="Class to explain: the one that the model predicts, or the image's own, from --labels.",
)
def command(
    request: EvaluationRequest,
    modes: tuple[str, ...],
    also: tuple[Path, ...],
    explain_with: str | None,
    methods: tuple[str, ...],
    samples: int | None,
    assignments: tuple[str, ...],
    pictures: int,
    metrics: tuple[str, ...],
    metric_assignments: tuple[str, ...],
    target: TargetRule,
) -> int:
    """Measure whether explanations say what the model relies on.

    Explains every image in FOLDER with one masking mode of MODEL, and measures the maps through each: insertion and
    deletion, drop and increase in confidence, sensitivity-n, infidelity; ROAD without any mask; and stability over
    seeds. Beside every method stand maps that know nothing of the model: centre, random, random-cells, ones, edges.
    """
    return measure_part(
        request,
        FaithfulnessOptions(
            modes=modes,
            also=also,
            explain_with=explain_with,
            methods=choose_methods(methods, samples, assignments),
            metrics=choose_metrics(metrics, metric_assignments),
            target=target,
            pictures=pictures,
        ),
    )


def choose_metrics(names: Sequence[str], assignments: Sequence[str]) -> OptionsByName:
    """Returns the metrics with their options, which are given as METRIC.OPTION=VALUE.

    Raises:
        MasktoolError: an option is of a metric that is not measured, or has another form.
    """
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in parse_assignments(assignments).items():
        name, dot, option = key.partition(".")
        if not dot or name not in options:
            raise MasktoolError(
                "no such option of a metric",
                where=f"--metric-set {key}",
                expected=f"METRIC.OPTION=VALUE, the metric one of {', '.join(options)}",
            )
        options[name][option] = value
    return options
