"""Options that say how images are cut into segments, for the subcommands that remove segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click

from masktool.evaluation.removal import SegmentChoice, SegmentKind


def segment_options(default: SegmentChoice) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds ``--segments``, ``--side`` and ``--n-segments``."""
    options = (
        click.option(
            "--segments",
            type=click.Choice(get_args(SegmentKind)),
            default=default.kind,
            show_default=True,
            help="How images are cut up: cells, superpixels, or as --segments-folder gives it.",
        ),
        click.option(
            "--side",
            type=click.IntRange(min=1),
            metavar="PIXELS",
            help="Of a cell, in the model's input.  [default: a 14th of the input]",
        ),
        click.option(
            "--n-segments",
            type=click.IntRange(min=1),
            default=default.n_segments,
            show_default=True,
            metavar="N",
            help="Roughly how many superpixels.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
