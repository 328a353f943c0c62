"""Text and JSON from files, with errors that name the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.runtime.paths import check_readable


def read_text(path: Path, expected: str) -> str:
    """Reads a file of UTF-8 text, with or without a byte order mark.

    Args:
        path: of the file.
        expected: what the file should be, for the error.

    Raises:
        MasktoolError: it is missing, empty, unreadable or no text.
    """
    check_readable(path, expected)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MasktoolError("not UTF-8 text", where=f"{path}, byte {error.start}", expected=expected) from error


def read_json(path: Path, expected: str) -> Any:
    """Reads a JSON document.

    Args:
        path: of the file.
        expected: what the file should hold, for the error.

    Raises:
        MasktoolError: it is missing, empty, unreadable or no JSON.
    """
    text = read_text(path, expected)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise MasktoolError("not JSON", where=place, expected=expected, got=error.msg) from error
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of thousands of digits
        raise MasktoolError("JSON that cannot be read", where=path, expected=expected, got=error) from error


def read_field(entry: Any, key: str, kind: type | tuple[type, ...], where: str, meaning: str) -> Any:
    """Returns a field of a JSON object.

    Args:
        entry: the object.
        key: of the field.
        kind: the field's type; a bool is no number.
        where: the object stands, for the error.
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
        count: how many there must be.
        where: the list stands, for the error.
        meaning: of the numbers, for the error.

    Raises:
        MasktoolError: it is anything else.
    """
    fine = isinstance(value, list) and len(value) == count
    if not fine or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        raise MasktoolError(f"not {count} numbers", where=where, expected=meaning, got=shorten(value))
    try:
        return tuple(float(each) for each in value)
    except OverflowError as error:  # an integer beyond 1e308
        raise MasktoolError(f"not {count} numbers", where=where, expected=meaning, got=error) from error


LONGEST = 60
"""Characters of a wrong value that an error shows."""


def shorten(value: Any) -> str:
    """Returns a value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
