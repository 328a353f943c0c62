"""Messages that name parameters of masktool's functions, spelled for Python or for the command line.

A program that called ``masktool.export`` reads ``input_size=(H, W)``; somebody who typed ``masktool export`` reads
``--input-size H W``. Both come from one text: :func:`parameter`, :func:`parameters`, :func:`call` and
:func:`differently` put a part into it that is not spelled yet. As a string it names parameters as Python does; the
command line spells them anew, from the table in :mod:`masktool.option_names`.

Put them together with ``+`` or :func:`join`: an f-string makes plain text of them, in Python's spelling.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Mapping


class Unsaid(enum.Enum):
    """The mark in place of a value, for a parameter that is named without one."""

    UNSAID = enum.auto()


class Placeholder(str):
    """A word that the user replaces by a value of their own, such as ``NAME``; shown without quotes."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Values of which the user takes one.

    Attributes:
        values: values to choose from.
        separator: text between the values.
    """

    values: tuple[object, ...]
    separator: str = "|"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a function of masktool's, perhaps with a value.

    Attributes:
        name: name of the parameter, as in the function's signature.
        value: value that is given for the parameter; a tuple may hold placeholders.
    """

    name: str
    value: object = Unsaid.UNSAID

    def __str__(self) -> str:
        return self.name if self.value is Unsaid.UNSAID else f"{self.name}={show_value(self.value)}"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Several parameters that are given together.

    Attributes:
        members: parameters, in the order in which they are written.
    """

    members: tuple[Parameter, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.members))


@dataclasses.dataclass(frozen=True)
class FunctionCall:
    """A call of a public function of masktool's, with a command line that does the same.

    Attributes:
        function: name of the function in ``masktool``.
        positional: values of the positional arguments. ``...`` stands in Python for one that a command has a default
            for.
        named: the other arguments, as parameters.
    """

    function: str
    positional: tuple[object, ...]
    named: Arguments

    def __str__(self) -> str:
        arguments = [*map(show_value, self.positional), *map(str, self.named.members)]
        return f"masktool.{self.function}({', '.join(arguments)})"


@dataclasses.dataclass(frozen=True)
class TwoWordings:
    """Words for Python and for the command line where no rule makes one form from the other.

    Attributes:
        python: words for a reader of Python.
        command: words for a reader of the command line.
    """

    python: str
    command: str

    def __str__(self) -> str:
        return self.python


Part = Parameter | Arguments | FunctionCall | TwoWordings
"""A part of a message that Python and the command line spell differently."""


class Message(str):
    """A text with parameters in it; as a string the message names them as Python does.

    Attributes:
        parts: pieces of text, and parts that either reader has spelled differently, in their order.
    """

    parts: tuple[str | Part, ...]

    def __new__(cls, *parts: str | Part) -> Message:
        """Makes one message of texts, messages and parts, in their order."""
        flat: list[str | Part] = []
        for part in parts:
            flat.extend(part.parts if isinstance(part, Message) else [part])
        new = super().__new__(cls, "".join(map(str, flat)))
        new.parts = tuple(flat)
        return new

    def __add__(self, other: str) -> Message:
        return Message(self, other)

    def __radd__(self, other: str) -> Message:
        return Message(other, self)

    def render(self, spell: Callable[[Part], str]) -> str:
        """Returns plain text in which every part is spelled by the function ``spell``."""
        return "".join(part if isinstance(part, str) else spell(part) for part in self.parts)

    def on_one_line(self) -> Message:
        """Returns the message without line breaks and repeated blanks in its text, and without any at its ends."""
        squeezed = [re.sub(r"\s+", " ", part) if isinstance(part, str) else part for part in self.parts]
        if squeezed and isinstance(squeezed[0], str):
            squeezed[0] = squeezed[0].lstrip()
        if squeezed and isinstance(squeezed[-1], str):
            squeezed[-1] = squeezed[-1].rstrip()
        return Message(*squeezed)


def parameter(name: str, value: object = Unsaid.UNSAID) -> Message:
    """Returns a parameter of a function of masktool's, perhaps with a value, as part of a message.

    Args:
        name: name of the parameter in Python; :mod:`masktool.option_names` must know its option.
        value: value that was given, or an example; see :class:`Placeholder` and :class:`OneOf`. Left out, the name
            alone.
    """
    return Message(Parameter(name, value))


def parameters(**values: object) -> Message:
    """Returns parameters that are given together, each with its value as for :func:`parameter`."""
    return Message(make_arguments(values))


def call(function: str, *positional: object, **named: object) -> Message:
    """Returns a call of a public function, or the command line that does the same, as part of a message."""
    return Message(FunctionCall(function, positional, make_arguments(named)))


def make_arguments(values: Mapping[str, object]) -> Arguments:
    """Returns arguments from values by the parameters' names."""
    return Arguments(tuple(Parameter(name, value) for name, value in values.items()))


def differently(*, python: str, command: str) -> Message:
    """Returns words for a program and others for a command line, as part of a message, where no rule leads to both."""
    return Message(TwoWordings(python, command))


def join(separator: str, messages: Iterable[str]) -> Message:
    """Returns messages with a text between them; ``str.join`` would make plain text of them."""
    parts: list[str] = []
    for message in messages:
        parts += [separator, message] if parts else [message]
    return Message(*parts)


def show_value(value: object) -> str:
    """Returns a value as Python source shows it; a tuple and alternatives member by member."""
    if isinstance(value, OneOf):
        return value.separator.join(map(show_value, value.values))
    if isinstance(value, tuple):
        return f"({', '.join(map(show_value, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Placeholder):
        return str(value)
    if value is ...:
        return "..."
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    text = str(value)
    plain = text.isprintable() and not set(text) & {'"', "\\"}
    return f'"{text}"' if plain else repr(text)


SIZE = (Placeholder("H"), Placeholder("W"))
"""Example of ``input_size``."""
PREPROCESSINGS = OneOf(("imagenet", "caffe", "tf", "yolo", "FILE.json"))
"""Examples of ``preprocessing``: the presets, and a file."""
