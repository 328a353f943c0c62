"""The methods to judge: the options that name them, for commands that explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from masktool.commands.explain_options import gradient_needs, parse_assignments, share_options
from masktool.evaluation.maps import MethodChoice
from masktool.explainers.method import METHODS

DEFAULT_METHODS = ("occlusion", "lime", "rise")
"""They need no gradients in the file."""
PICTURES = 4


class MethodChoices(NamedTuple):
    """What the options say.

    Attributes:
        methods: with their options.
        gradient: whether any of them needs gradients.
    """

    methods: list[MethodChoice]
    gradient: bool


def method_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds ``--method``, ``--samples``, ``--set`` and ``--pictures``.

    They give ``methods``, ``samples``, ``assignments`` and ``pictures``.
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


def choose_methods(methods: Sequence[str], samples: int | None, assignments: Sequence[str]) -> MethodChoices:
    """Returns what the options say, each method with the options that it knows.

    Raises:
        MasktoolError: an option that none of the methods knows, or a value out of range.
    """
    options = share_options(methods, samples, parse_assignments(assignments))
    choices = []
    for name, given in options.items():
        own = METHODS[name].samples_option
        choices.append(
            MethodChoice(name, {k: v for k, v in given.items() if k != own}, given.get(own) if own else None)
        )
    return MethodChoices(choices, gradient_needs(options)[0])
