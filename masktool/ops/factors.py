"""The factors that two shapes have in common, and how a mask varies along each: arithmetic, without a graph.

(N, h, w, 4 · 6) and (N, h · w · 4, 6) have the factors N, h, w, 4 and 6 in common. :mod:`masktool.ops.reshape` says
what becomes of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from masktool.ops.builder import Length
from masktool.ops.errors import RuleError
from masktool.ops.graph import IMAGES, Factor, Masked

Kind = Literal["images", "places", "repeated", "free"]
"""The kind of a factor: the batch, places, something along which the mask is repeated, or nothing of the mask."""


@dataclasses.dataclass(frozen=True)
class Common:
    """A factor that two shapes have in common.

    Attributes:
        length: the factor's length: a number, the name of a symbolic length, or None where it is not known.
        source: the axis that the factor lies on before the reshape; None for a new axis of length 1.
        target: the axis that the factor lies on behind the reshape; None for an axis of length 1 that is gone.
        kind: what lies along the factor: images, places, a repeated mask, or nothing of the mask.
        parts: the factors that were merged into this one, in order; for the images, those behind them.
    """

    length: Length
    source: int | None
    target: int | None
    kind: Kind = "free"
    parts: tuple[Factor, ...] = ()


class NoCommonFactorError(Exception):
    """Raised for a shape whose ``axis`` has to be merged with the one before it."""

    def __init__(self, axis: int) -> None:
        super().__init__(f"axis {axis} has no factor in common with the new shape")
        self.axis = axis


def parts_on(factors: Sequence[Common], axis: int) -> tuple[Factor, ...]:
    """Returns the parts of the factors that lie on an axis behind the reshape."""
    return tuple(part for factor in factors if factor.target == axis and factor.length != 1 for part in factor.parts)


def united(parts: Sequence[Factor]) -> tuple[Factor, ...]:
    """Returns factors with neighbours of the same sort, places or not, multiplied."""
    result: list[Factor] = []
    for length, holds_places in parts:
        last = result[-1] if result else IMAGES
        if isinstance(last[0], int) and isinstance(length, int) and last[1] == holds_places:
            result[-1] = (last[0] * length, holds_places)
        else:
            result.append((length, holds_places))
    return tuple(result)


def name_factors(state: Masked, factors: Sequence[Common]) -> list[Common]:
    """Returns factors with the kind and the parts of what lies along each.

    Raises:
        RuleError: an axis is cut in another way than it was merged.
    """
    named = list(factors)
    for axis in {factor.source for factor in factors if factor.source is not None}:
        on_axis = [index for index, factor in enumerate(factors) if factor.source == axis]
        indices = [index for index in on_axis if factors[index].length != 1] or on_axis[:1]
        is_batch = axis == state.batch
        known = state.merged.get(axis, (IMAGES,) if is_batch else ())
        cut = cut_parts(known, [factors[index].length for index in indices]) if known else []
        for place, index in enumerate(indices):
            own = cut[place] if known else ((factors[index].length, axis in state.axes),)
            named[index] = dataclasses.replace(factors[index], parts=own, kind=kind_of(own, axis, state))
    return named


def kind_of(parts: Sequence[Factor], axis: int, state: Masked) -> Kind:
    """Returns what lies along a factor with these parts."""
    if IMAGES in parts:
        return "images"
    if any(holds_places and length != 1 for length, holds_places in parts):
        return "places"
    return "repeated" if axis in (state.batch, *state.axes) else "free"


def cut_parts(parts: Sequence[Factor], lengths: Sequence[Length]) -> list[tuple[Factor, ...]]:
    """Deals the parts of an axis out to the factors that it is cut into; a symbolic factor gets what is left.

    Raises:
        RuleError: the parts do not fit the factors.
    """
    left = list(parts)
    open_ends = [index for index, length in enumerate(lengths) if not isinstance(length, int)] or [0]
    middle = open_ends[0]
    front = [take_parts(left, length, first=True) for length in lengths[:middle]]
    back = [take_parts(left, length, first=False) for length in reversed(lengths[middle + 1 :])]
    return [*front, tuple(left), *reversed(back)]


def take_parts(left: list[Factor], length: Length, *, first: bool) -> tuple[Factor, ...]:
    """Takes the parts that make up ``length`` off the beginning or the end of a list, and cuts the last one to fit."""
    end = 0 if first else -1
    taken: list[Factor] = []
    needed = length
    while needed != 1:
        size, holds_places = left.pop(end) if left else IMAGES
        if not isinstance(size, int) or not isinstance(needed, int) or max(size, needed) % min(size, needed):
            raise RuleError(f"it cuts a length of {length} off an axis that was merged in another way")
        if size > needed:
            left.insert(0 if first else len(left), (size // needed, holds_places))
        taken.insert(len(taken) if first else 0, (min(size, needed), holds_places))
        needed //= min(size, needed)
    return tuple(taken)


def common_factors(before: Sequence[Length], after: Sequence[Length]) -> list[Common]:
    """Returns the smallest factors that two shapes with as many elements have in common, in order.

    Raises:
        RuleError: the shapes have no common factors, or lengths that are not fixed hide them.
    """
    old, new = list(enumerate(before)), list(enumerate(after))
    from_the_end = take_factors(old, new)
    old.reverse()
    new.reverse()
    factors = take_factors(old, new)
    rest_old, rest_new = old[::-1], new[::-1]
    if len(rest_old) == 1 and rest_new:
        factors += [Common(length, rest_old[0][0], axis) for axis, length in rest_new]
    elif len(rest_new) == 1 and rest_old:
        factors += [Common(length, axis, rest_new[0][0]) for axis, length in rest_old]
    elif rest_old or rest_new:
        raise RuleError(f"it reshapes {list(before)} to {list(after)}: too many lengths are not fixed")
    return factors + from_the_end[::-1]


def take_factors(old: list[tuple[int, Length]], new: list[tuple[int, Length]]) -> list[Common]:
    """Takes common factors off the ends of two lists of (axis, length), as far as lengths are known or agree."""
    factors = []
    while old or new:
        source, m = old[-1] if old else (None, None)
        target, n = new[-1] if new else (None, None)
        if m == n and m is not None:
            factors.append(Common(m, source, target))
        elif m == 1:
            factors.append(Common(1, source, None))
            target = None
        elif n == 1:
            factors.append(Common(1, None, target))
            source = None
        elif isinstance(m, int) and isinstance(n, int):
            factors.append(take_common_length(old, new, m, n))
            continue
        else:
            break
        if source is not None:
            old.pop()
        if target is not None:
            new.pop()
    return factors


def take_common_length(old: list[tuple[int, Length]], new: list[tuple[int, Length]], m: int, n: int) -> Common:
    """Takes the shorter of the last lengths m and n off both lists, and leaves what remains of the longer."""
    (source, _), (target, _) = old[-1], new[-1]
    longer, shorter = (old, new) if m > n else (new, old)
    if max(m, n) % min(m, n):
        raise NoCommonFactorError(source)
    longer[-1] = (longer[-1][0], max(m, n) // min(m, n))
    shorter.pop()
    return Common(min(m, n), source, target)
