"""Groups of subcommands that are imported when they are called, so that help is quick."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

ARGUMENTS = f"{__name__}.arguments"
"""Key in a context's ``meta`` for the program's name and the arguments typed after it."""


class OptionOfWords(click.Option, abc.ABC):
    """An option whose value may be typed in one word or in several; click knows options of a fixed number only.

    It gets one word: :class:`LazyGroup` joins the others to it before click reads the arguments of a subcommand.
    """

    @abc.abstractmethod
    def join_words(self, arguments: Sequence[str]) -> list[str]:
        """Returns a subcommand's arguments with the words of each of its values as one."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is called or its own help is asked for.

    Args:
        package: the package whose modules hold one subcommand each, under the name ``command``; dashes in a
            subcommand's name are underscores in the module's.
        summaries: the summaries of the subcommands by name, in the order of use. They stand beside the group, so that
            its help imports no subcommand; tests compare them to the subcommands' own.
    """

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.package = package
        self.summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Returns the names of the subcommands in the order of use."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports one subcommand and returns it; None for an unknown name."""
        if cmd_name not in self.summaries:
            return None
        module = importlib.import_module(f"{self.package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the summaries of the subcommands into the help, without importing the subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the subcommand, keeps the typed arguments in the context, and joins words that are one value."""
        if ctx.parent is None:
            ctx.meta[ARGUMENTS] = (ctx.info_name or "", *args)
        name, command, rest = super().resolve_command(ctx, args)
        for each in () if command is None else command.params:
            if isinstance(each, OptionOfWords):
                rest = each.join_words(rest)
        return name, command, rest


def typed_arguments(context: click.Context) -> tuple[str, ...]:
    """Returns the typed arguments from the program's name on, without options before the first subcommand."""
    arguments: tuple[str, ...] = context.meta.get(ARGUMENTS, ())
    return arguments
