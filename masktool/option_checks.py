"""Checks of options: each returns the value or raises an error that names the option."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from masktool.errors import MasktoolError

Built = TypeVar("Built")
MOST_AXES = 3
"""Most axes of places that an input has."""


def build_with_options(kind: type[Built], title: str, options: Mapping[str, Any]) -> Built:
    """Returns a dataclass whose fields are options; an option that is left out takes its default.

    Args:
        kind: class of the dataclass.
        title: word for the dataclass in error messages.
        options: values of the options by name.

    Raises:
        MasktoolError: there is no such option, or a value is out of range.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    if unknown := sorted(set(options) - set(known)):
        expected = f"some of {', '.join(known)}" if known else "none: it has no options"
        raise MasktoolError(f"unknown option of {title}", where=", ".join(unknown), expected=expected)
    return kind(**options)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises a MasktoolError that names the option unless its value is one of the choices."""
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        expected = " | ".join(str(choice) for choice in choices)
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))


def check_named(title: str, name: object, known: Sequence[str]) -> None:
    """Raises a MasktoolError that says ``title`` for the name of something that is not among the known ones."""
    if name not in known:
        raise MasktoolError(f"unknown {title}", expected=" | ".join(known), got=str(name))


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Returns an option's value as an int of at least ``minimum``, or raises a MasktoolError that names the option."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # whatever is no integer raises TypeError
    except TypeError:
        count = minimum - 1
    if count < minimum or isinstance(value, bool):
        raise MasktoolError(
            "option out of range", where=name, expected=f"a whole number from {minimum}", got=repr(value)
        )
    return count


def check_size(name: str, value: Any) -> tuple[int, ...]:
    """Returns an option's value as the size of an input, or raises a MasktoolError that names the option.

    It is (height, width) in pixels; of a signal (length,), of a volume (depth, height, width).
    """
    sides = () if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not 1 <= len(sides) <= MOST_AXES:
        expected = "(height, width), or (length,) or (depth, height, width)"
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))
    return tuple(check_count(name, side) for side in sides)


def check_several(name: str, value: object) -> None:
    """Raises a MasktoolError that names the option where its value is a single one, not several.

    A text would otherwise be taken letter by letter.
    """
    if isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable):
        raise MasktoolError(
            "one value in place of several", where=name, expected=f"such as [{value!r}]", got=repr(value)
        )


LARGEST = sys.float_info.max
"""Largest float; an integer may be beyond it."""


def is_real_number(value: object) -> bool:
    """Tells whether a value is a whole number or a float, and neither a truth value nor a fraction."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole or (isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational))


def check_share(name: str, value: object) -> float:
    """Returns an option's value as a float in 0..1, ends included; MasktoolError, naming the option, otherwise."""
    if not is_real_number(value) or not 0 <= value <= 1:  # type: ignore[operator]  # it is a number
        raise MasktoolError("option out of range", where=name, expected="a number in 0..1", got=repr(value))
    return float(value)  # type: ignore[arg-type]  # it is one


def check_real(name: str, value: object, *, above: float, below: float = math.inf) -> float:
    """Returns an option's value as a float strictly between two limits; MasktoolError, naming the option, otherwise."""
    if not is_real_number(value) or not above < value < min(below, LARGEST):  # type: ignore[operator]  # it is a number
        limits = f"above {above:g}" + ("" if below == math.inf else f" and below {below:g}")
        raise MasktoolError("option out of range", where=name, expected=f"a number {limits}", got=repr(value))
    return float(value)  # type: ignore[arg-type]  # it is one
