"""Options that choose the methods to evaluate, for the subcommands that explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from masktool.commands.explain_options import parse_assignments, share_options
from masktool.explainers.method import METHODS
from masktool.interface.part_options import DEFAULT_METHODS, PICTURES, OptionsByName


def method_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds ``--method``, ``--samples``, ``--set`` and ``--pictures``.

    The command gets their values as ``methods``, ``samples``, ``assignments`` and ``pictures``.
    """
    for decorate in (
        click.option(
            "--pictures",
            type=click.IntRange(min=0),
            default=PICTURES,
            show_default=True,
            metavar="N",
            help="Write the explanations of the first N images as pictures, for the report.",
        ),
        click.option(
            "--set",
            "assignments",
            metavar="OPTION=VALUE",
            multiple=True,
            help="Any other option of a method, such as p=0.3, repeatable.",
        ),
        click.option(
            "--samples", type=int, metavar="N", help="How many masks, for methods that draw them, else steps."
        ),
        click.option(
            "--method",
            "methods",
            type=click.Choice(list(METHODS)),
            multiple=True,
            default=DEFAULT_METHODS,
            show_default=True,
            help="How to explain, repeatable.",
        ),
    ):
        function = decorate(function)
    return function


def choose_methods(methods: Sequence[str], samples: int | None, assignments: Sequence[str]) -> OptionsByName:
    """Returns the methods that were named, each with those of the given options that it has.

    Raises:
        MasktoolError: none of the methods has an option that was given, or a value is out of range.
    """
    return share_options(methods, samples, parse_assignments(assignments))
