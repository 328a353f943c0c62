"""Finds the bounds that an output lies between from the operators at its end, by interval arithmetic.

What lies between 0 and 1 is no logit: a sigmoid or softmax of it would be a second one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.exporters.score_paths import ARRANGING, MEANS, constant_behind
from masktool.exporters.written_out import is_sigmoid, shared_axes

ROUNDING = 1e-6
"""The largest excess below 0 or above 1 that the rounding of float32 may make."""
DEEPEST = 32
"""Nodes in a row that are followed; ends are shorter."""


class Bounds(NamedTuple):
    """The least and the largest number that a value may hold."""

    low: float = -math.inf
    high: float = math.inf


ANY = Bounds()
SHARE = Bounds(0, 1)
FIXED = {
    **dict.fromkeys(("Softmax", "Sigmoid", "HardSigmoid", "Hardmax"), SHARE),
    **dict.fromkeys(("Tanh", "Softsign", "Erf", "Sin", "Cos"), Bounds(-1, 1)),
    **dict.fromkeys(("Abs", "Softplus", "ReduceL2", "ReduceL1", "ReduceSumSquare"), Bounds(0)),
    "LogSoftmax": Bounds(-math.inf, 0),
}
KEEPING = ARRANGING | MEANS | {"Gather", "GatherElements", "GatherND", "Slice", "Split", "Expand", "Tile"}
KEEPING |= {"MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"}
"""Operators whose results are numbers of their first input, or means of these."""


def lies_between_0_and_1(value: ir.Value) -> bool:
    """Tells whether an output cannot be below 0 or above 1, whatever the image."""
    low, high = bounds_of(value, DEEPEST, {})
    return low >= -ROUNDING and high <= 1 + ROUNDING


def bounds_of(value: ir.Value | None, depth: int, known: dict[ir.Value, Bounds]) -> Bounds:
    """Returns between which bounds a value lies; infinite ones where that is not known.

    Args:
        value: the value; None for an input that is left out.
        depth: the number of nodes in a row that are followed.
        known: the bounds of values that were met before; those found are added.
    """
    if value is None:
        return ANY
    if value not in known:
        known[value] = ANY
        known[value] = find_bounds(value, depth, known)
    return known[value]


def find_bounds(value: ir.Value, depth: int, known: dict[ir.Value, Bounds]) -> Bounds:
    """Returns the bounds of a value that was not met before."""
    node = value.producer()
    constant = constant_behind(value) if node is None or node.op_type == "Constant" else None
    if constant is not None and constant.size and constant.dtype.kind in "fiu":
        return Bounds(float(constant.min()), float(constant.max()))
    if node is None or not depth:
        return ANY
    if node.op_type in FIXED:
        return FIXED[node.op_type]
    if is_sigmoid(node) or shared_axes(node):
        return SHARE
    if node.op_type not in RULES:
        return ANY
    read = node.inputs[:1] if node.op_type in KEEPING else node.inputs[1:] if node.op_type == "Where" else node.inputs
    return RULES[node.op_type]([bounds_of(each, depth - 1, known) for each in read])


def unite(given: Sequence[Bounds]) -> Bounds:
    """Returns bounds of a value that comes from any of several values."""
    return Bounds(min(each.low for each in given), max(each.high for each in given))


def add(given: Sequence[Bounds]) -> Bounds:
    """Returns bounds of a sum."""
    return Bounds(sum(each.low for each in given), sum(each.high for each in given))


def negate(one: Bounds) -> Bounds:
    """Returns bounds of a value with the other sign."""
    return Bounds(-one.high, -one.low)


def multiply_bounds(given: Sequence[Bounds]) -> Bounds:
    """Returns bounds of a product of two values."""
    one, other = given
    ends = [0.0 if 0 in (a, b) else a * b for a in one for b in other]  # 0 times infinity is 0: no end is reached
    return Bounds(min(ends), max(ends))


def invert(one: Bounds) -> Bounds:
    """Returns bounds of 1 / x."""
    return ANY if one.low <= 0 <= one.high else Bounds(1 / one.high, 1 / one.low)


def clip(given: Sequence[Bounds]) -> Bounds:
    """Returns bounds of values between two constants, one of which may be left out."""
    one, *limits = given
    floor = limits[0].low if limits else -math.inf
    ceiling = limits[1].high if len(limits) > 1 else math.inf
    return Bounds(min(max(one.low, floor), ceiling), max(min(one.high, ceiling), floor))


def raise_e(one: Bounds) -> Bounds:
    """Returns bounds of exp(x)."""
    return Bounds(*(math.exp(end) if end < math.log(1e300) else math.inf for end in one))


RULES: dict[str, Callable[[Sequence[Bounds]], Bounds]] = {
    **dict.fromkeys(KEEPING, lambda given: given[0]),
    **dict.fromkeys(("Concat", "Where"), unite),
    **dict.fromkeys(("Add", "Sum"), add),
    "Sub": lambda given: add([given[0], negate(given[1])]),
    "Neg": lambda given: negate(given[0]),
    "Mul": multiply_bounds,
    "Div": lambda given: multiply_bounds([given[0], invert(given[1])]),
    "Reciprocal": lambda given: invert(given[0]),
    "Clip": clip,
    "Max": lambda given: Bounds(max(each.low for each in given), max(each.high for each in given)),
    "Min": lambda given: Bounds(min(each.low for each in given), min(each.high for each in given)),
    "Relu": lambda given: Bounds(max(given[0].low, 0), max(given[0].high, 0)),
    "Exp": lambda given: raise_e(given[0]),
}
