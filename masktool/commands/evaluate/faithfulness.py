"""``masktool evaluate faithfulness``: do explanations say what the model relies on?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, finish_evaluation
from masktool.commands.evaluate.methods import choose_methods, method_options
from masktool.commands.evaluate.modes import mode_options, open_modes
from masktool.commands.explain_options import parse_assignments
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.metric import METRICS, Metric, build_metric
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.overlays import FOLDER
from masktool.evaluation.parts.faithfulness import TARGET_RULES, Faithfulness, TargetRule

MODES = ("layer", "mean")
"""Layer masking, and the fill that is the usual control."""
DEFAULT_METRICS = ("insertion-deletion", "road", "confidence", "sensitivity-n", "infidelity")
"""Stability makes every map once more for each further seed, so it is measured when asked for."""


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
    choices = choose_methods(methods, samples, assignments)
    chosen = choose_metrics(metrics, metric_assignments)
    with contextlib.ExitStack() as stack:
        measuring = open_modes(request, stack, modes, also, MODES)
        part = Faithfulness(
            explainer=open_explainer(request, stack, measuring, explain_with, choices.gradient),
            measuring=measuring,
            methods=choices.methods,
            metrics=chosen,
            target=target,
            seed=request.seed,
            batch=request.batch,
            overlays=request.directory / FOLDER,
            pictured=request.pictured(pictures),
        )
        return finish_evaluation(request, part)


def choose_metrics(names: Sequence[str], assignments: Sequence[str]) -> list[Metric]:
    """Returns the metrics with their options, from METRIC.OPTION=VALUE.

    Raises:
        MasktoolError: an option of a metric that is not measured, an unknown one, or a value out of range.
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
    return [build_metric(name, given) for name, given in options.items()]


def open_explainer(
    request: EvaluationRequest,
    stack: contextlib.ExitStack,
    measuring: Sequence[NamedModel],
    name: str | None,
    gradient: bool,
) -> NamedModel:
    """Returns the model that maps are made with.

    It is opened anew, with gradients, where a method needs them: in the models that measure they would only cost time.
    """
    found = next((model for model in measuring if model.name == name), None if name else measuring[0])
    if found is not None and (found.session.has_gradient or not gradient):
        return found
    (opened,) = request.open_models(stack, [found.name if found else str(name)], gradient)
    return opened
