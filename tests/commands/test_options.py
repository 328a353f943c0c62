"""An option that several commands share is declared once, so that it means and says the same everywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from masktool.cli import masktool as command_line

SHARED = (
    *("arch", "input_size", "channels", "image_input", "preprocess", "class_output", "output_kind", "trust_code"),
    *("mean", "std", "baseline", "provider", "threads", "as_json"),
)
"""Parameters that mean one thing in every command; others share a word alone, or have a default of their own."""


def options_of(command: click.Command) -> Iterator[click.Option]:
    """Yields the options of a command and of its subcommands."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from options_of(subcommand)
    yield from (each for each in command.params if isinstance(each, click.Option))


def helps_by_parameter() -> dict[str, set[str | None]]:
    found = defaultdict(set)
    for option in options_of(command_line):
        found[str(option.name)].add(option.help)
    return found


@pytest.mark.parametrize("name", SHARED)
def test_it_says_the_same_everywhere(name: str):
    assert len(helps_by_parameter()[name]) == 1
