"""The option ``--input-size``: two numbers, as images have, or one word for an input of any number of axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from masktool.contract import Size
from masktool.lazy import OptionOfWords
from masktool.option_checks import MOST_AXES

NUMBER = re.compile(r"[+-]?[0-9]+")
TIMES = "x"
END_OF_OPTIONS = "--"


class InputSize(click.ParamType):
    """Lengths with an x between them: ``1000``, ``224x224``, ``16x112x112``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Returns the lengths in a word; a value that is a tuple already unchanged."""
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().split(TIMES)
        if len(sides) > MOST_AXES or not all(map(NUMBER.fullmatch, sides)):
            self.fail(f"{value!r} is no size: expected H W, or one word: L, HxW or DxHxW", param, ctx)
        return tuple(click.IntRange(min=1)(side, param, ctx) for side in sides)


class InputSizeOption(OptionOfWords):
    """An option whose value is a size in one word, or a height and a width in two."""

    def join_words(self, arguments: Sequence[str]) -> list[str]:
        """Returns arguments with each height and width as one word; a third number stays an argument of its own."""
        joined: list[str] = []
        left = list(arguments)
        while left:
            word = left.pop(0)
            if word == END_OF_OPTIONS:
                return [*joined, word, *left]
            joined.append(word)
            option, equals, first = word.partition("=")
            if option not in self.opts:
                continue
            if not equals and left:
                first = left.pop(0)
                joined.append(first)
            if left and NUMBER.fullmatch(first) and NUMBER.fullmatch(left[0]):
                joined[-1] += TIMES + left.pop(0)
        return joined


input_size_option = click.option(
    "--input-size",
    cls=InputSizeOption,
    type=InputSize(),
    metavar="H W|L|DxHxW",
    help="Height and width of the input in pixels, where MODEL does not fix them; of a signal or a volume one word: "
    "1000, 16x112x112.",
)
