"""Fields of JSON documents, with errors that name the place."""

from __future__ import annotations

from typing import Any

from masktool.data_files import shorten
from masktool.errors import MasktoolError


def read_field(entry: Any, key: str, kind: type | tuple[type, ...], where: str, meaning: str) -> Any:
    """Returns a field of a JSON object.

    Args:
        entry: the object.
        key: name of the field.
        kind: the field's type; a bool is no number.
        where: place of the object, for the error.
        meaning: what the field should be, for the error.

    Raises:
        MasktoolError: the entry is no object, the field is missing or of another type.
    """
    if not isinstance(entry, dict):
        raise MasktoolError("not an object", where=where, expected=f"{key!r}, {meaning}", got=shorten(entry))
    if key not in entry:
        raise MasktoolError(f"no {key!r}", where=where, expected=meaning)
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MasktoolError(f"wrong {key!r}", where=where, expected=meaning, got=shorten(value))
    return value


def read_numbers(value: Any, count: int, where: str, meaning: str) -> tuple[float, ...]:
    """Returns a JSON list of numbers.

    Args:
        value: the list.
        count: number of numbers that there must be.
        where: place of the list, for the error.
        meaning: what the numbers should be, for the error.

    Raises:
        MasktoolError: the value is anything else.
    """
    fine = isinstance(value, list) and len(value) == count
    if not fine or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        raise MasktoolError(f"not {count} numbers", where=where, expected=meaning, got=shorten(value))
    try:
        return tuple(float(each) for each in value)
    except OverflowError as error:  # an integer beyond 1e308
        raise MasktoolError(f"not {count} numbers", where=where, expected=meaning, got=error) from error
