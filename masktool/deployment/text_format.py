"""Protocol buffers' text format, as much of it as a config.pbtxt needs.

Source: Text Format Language Specification, https://protobuf.dev/reference/protobuf/textformat-spec
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeAlias

INDENT = "  "
PLAIN_ASCII = frozenset(range(0x20, 0x7F)) - {ord('"'), ord("\\")}
"""Bytes that stand in a string as they are."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A value of an enumeration, which is written without quotes.

    Attributes:
        name: name of the value.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Fields:
    """A message: its fields in order; a repeated field stands once for each value, or once with a list of scalars.

    Attributes:
        items: names and values.
    """

    items: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, *items: tuple[str, Value | None]) -> Fields:
        """Returns the message of these fields, without those whose value is None."""
        return cls(tuple((name, value) for name, value in items if value is not None))


Scalar: TypeAlias = "bool | int | str | Word"
Value: TypeAlias = "Scalar | Sequence[Scalar] | Fields"


def write_fields(message: Fields) -> str:
    """Returns a message in the text format, one field a line."""
    return "".join(line + "\n" for line in list_lines(message, ""))


def list_lines(message: Fields, indent: str) -> Iterator[str]:
    """Yields the lines of a message."""
    for name, value in message.items:
        if isinstance(value, Fields):
            yield f"{indent}{name} {{"
            yield from list_lines(value, indent + INDENT)
            yield f"{indent}}}"
        elif isinstance(value, list | tuple):
            yield f"{indent}{name}: [{', '.join(map(write_scalar, value))}]"
        else:
            yield f"{indent}{name}: {write_scalar(value)}"


def write_scalar(value: object) -> str:
    """Returns a scalar in the text format.

    Raises:
        TypeError: the value is no scalar.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Word():
            return value.name
        case str():
            return quote_text(value)
    raise TypeError(f"no scalar: {value!r}")


def quote_text(text: str) -> str:
    """Returns a text in quotes; what is not plain ASCII stands as the octal numbers of its bytes in UTF-8."""
    return '"' + "".join(chr(byte) if byte in PLAIN_ASCII else f"\\{byte:03o}" for byte in text.encode()) + '"'
