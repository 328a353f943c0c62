"""``masktool evaluate``: how far explanations, and the masking, can be trusted. One subcommand per module."""

from __future__ import annotations

import click

from masktool.lazy import LazyGroup

SUMMARIES = {
    "compare": "Compare all methods at equal budgets of forward passes.",
    "missingness": "Measure what removing parts of images does to predictions.",
    "faithfulness": "Measure whether explanations say what the model relies on.",
    "localisation": "Measure whether explanations find the objects.",
    "lime-alignment": "Measure how well LIME's segments agree with the objects.",
    "randomisation": "Check that explanations change when weights are randomised.",
    "report": "Make one HTML page of everything that was measured.",
}
"""The subcommands' summaries, kept here so that ``masktool evaluate --help`` imports no subcommand; a test compares
them with the subcommands' own."""


@click.group(
    name="evaluate",
    cls=LazyGroup,
    package=__name__,
    summaries=SUMMARIES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def command(context: click.Context) -> None:
    """Measure how far explanations, and the masking, can be trusted.

    Every measurement runs on a folder of images, prints tables with 95 % bootstrap intervals over the images, and
    writes its figures and charts into a directory. One that was interrupted goes on where it was.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
