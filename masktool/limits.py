"""Limits on what masktool spends on one input, each with a name, a default and one way to raise it.

A file of a few hundred bytes may ask for terabytes. Whoever allocates or loops by a number that came from outside asks
here first. ``masktool --limit NAME=N ...`` raises a limit on the command line, :func:`limits` in Python.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Mapping

from masktool.errors import MasktoolError
from masktool.messages import Message, differently

DIGITS = 18
"""Most digits of a number that ``--limit`` takes: the largest such number is a little below 2⁶³."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """One declared limit.

    Attributes:
        default: largest number that is accepted unless the limit is raised.
        what: name of what is counted, with its unit.
    """

    default: int
    what: str


LIMITS: Mapping[str, Limit] = {
    "pixels": Limit(100_000_000, "pixels of one photograph, label map or array"),
    "bytes": Limit(1_000_000_000, "bytes of one file of data: a photograph, an array, annotations"),
    "text": Limit(1_000_000, "characters of one text: a metadata value, a preset, a file of labels"),
    "segments": Limit(10_000, "segments of one image, whose squares take memory"),
    "json": Limit(16_000_000, "numbers of one map in a JSON document"),
    "program": Limit(200_000_000, "bytes of a program in one of torch's archives, unpacked"),
    "nodes": Limit(200_000, "nodes of a graph, those that masktool adds included"),
    "fill-rounds": Limit(256, "rounds of neighbour fill in front of one window: dilation x (kernel - 1)"),
    "trips": Limit(100_000, "rounds of a Loop whose condition stays true"),
    "seconds": Limit(120, "seconds until a network with a Loop has an answer for one image"),
    "batch-memory": Limit(2_000_000_000, "bytes of memory that trials for the fastest batch may take"),
    "copies": Limit(64, "images of a fixed batch that cannot be opened, all of which are computed for every mask"),
    "values": Limit(12_000_000, "numbers in one image that a network takes, C x H x W"),
    "tensor": Limit(200_000_000, "numbers in one tensor that a graph computes, its batch included where that is fixed"),
}
"""All limits by name, as ``--limit`` takes it."""

_RAISED: contextvars.ContextVar[Mapping[str, int] | None] = contextvars.ContextVar("masktool_limits", default=None)


def limit(name: str) -> int:
    """Returns the number in force for the limit of a name: as raised, else the default."""
    return (_RAISED.get() or {}).get(name, LIMITS[name].default)


def raised_limits() -> dict[str, int]:
    """Returns the numbers that were raised in force, by their limits' names, for a process that is to have the same."""
    return {name.replace("-", "_"): number for name, number in (_RAISED.get() or {}).items()}


def check_limit(name: str, got: int, *, where: object | None = None) -> None:
    """Raises MasktoolError where a number is beyond a limit; the message says how to raise the limit, where it can be.

    Args:
        name: name of the limit, a key of :data:`LIMITS`.
        got: number that an input asks for.
        where: file, node or input that asks for it; None leaves it out.
    """
    if got > limit(name):
        raise MasktoolError(
            "beyond a limit of masktool",
            where=where,
            expected=f"at most {limit(name)} {LIMITS[name].what}",
            got=got,
            fix=advise_limit(name, got) if len(str(got)) <= DIGITS else None,
        )


def advise_limit(name: str, number: int) -> Message:
    """Returns the advice on how to raise a limit to a number, as a message."""
    python = f"with masktool.limits.limits({name.replace('-', '_')}={number}): ..."
    return "if that is meant: " + differently(python=python, command=f"masktool --limit {name}={number} ...")


@contextlib.contextmanager
def limits(**raised: int) -> Iterator[None]:
    """Sets limits within a block, a dash in a name written as an underscore.

    ``with limits(fill_rounds=2000): ...``

    Raises:
        MasktoolError: there is no such limit, or its number is not positive.
    """
    named = {name.replace("_", "-"): number for name, number in raised.items()}
    if unknown := sorted(set(named) - set(LIMITS)):
        raise MasktoolError("no such limit", where=", ".join(unknown), expected=f"some of {', '.join(LIMITS)}")
    if wrong := [f"{name}={number}" for name, number in named.items() if number < 1]:
        raise MasktoolError("a limit that nothing meets", expected="a positive number", got=", ".join(wrong))
    token = _RAISED.set({**(_RAISED.get() or {}), **named})
    try:
        yield
    finally:
        _RAISED.reset(token)
