"""Recognises a softmax or a sigmoid at the end of a graph, as one operator or written out in several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.score_paths import SUMS, constant_behind, core_of, find_score_producer, lone_operand, passed_on

SOFTMAXES = frozenset({"Softmax", "LogSoftmax"})
SMALL = 1e-3
"""A constant up to this beside a sum of exponentials only keeps it from 0."""


def softmax_over_columns(
    node: ir.Node | None, before: Sequence[ir.Node], trail: Sequence[ir.Node], columns: int | None
) -> str | None:
    """Returns the operator of a softmax, written out or not, that goes over the columns of an output; else None.

    Args:
        node: the node that may be a softmax.
        before: the nodes between that node and the trail, in order.
        trail: the nodes that rearrange its results to the output, in order.
        columns: the number of columns of the output; None where it is not known.
    """
    if node is None:
        return None
    name, axes = (node.op_type, softmax_axes(node)) if node.op_type in SOFTMAXES else ("Softmax", shared_axes(node))
    shape = next((each.shape for each in (*node.outputs, *node.inputs) if each is not None and each.shape), None)
    if not axes or columns == 1:  # of one column each alone: 1, whatever the image
        return None
    return name if are_columns(axes, shape, [*before, *trail], columns) else None


def softmax_axes(node: ir.Node) -> list[int]:
    """Returns the axes that a Softmax or LogSoftmax goes over."""
    shape = next((each.shape for each in (*node.inputs, *node.outputs) if each is not None and each.shape), None)
    since_opset_13 = (node.version or node.graph.opset_imports.get("", 13) if node.graph else 13) >= 13
    axis = node.attributes.get_int("axis", -1 if since_opset_13 else 1)
    assert axis is not None
    return [axis] if since_opset_13 or shape is None else list(range(axis % shape.rank(), shape.rank()))


def shared_axes(node: ir.Node) -> list[int] | None:
    """Returns the axes of a softmax that is written out, exp(z) / Σ exp(z); None where a node is none."""
    numerator, denominator = fraction_of(node)
    if numerator is None or denominator is None:
        return None
    total = denominator.producer()
    while total is not None and (inner := kept_from_zero(total)) is not None:
        total = inner.producer()
    if (
        total is None
        or total.op_type not in ("ReduceSum", "ReduceL1")
        or not same_exponential(numerator, total.inputs[0])
    ):
        return None
    given = constant_behind(total.inputs[1]) if len(total.inputs) > 1 else None
    if given is not None:
        return [int(each) for each in given.reshape(-1)]
    listed = total.attributes.get_ints("axes", None)
    shape = None if total.inputs[0] is None else total.inputs[0].shape
    return list(listed) if listed is not None else None if shape is None else list(range(shape.rank()))


def kept_from_zero(node: ir.Node) -> ir.Value | None:
    """Returns the input that a node repeats, rearranges, clips or adds a small constant to."""
    if node.op_type == "Expand":
        return node.inputs[0]
    if node.op_type in SUMS:
        added = [number for each in node.inputs if (number := constant_behind(each)) is not None]
        small = all(np.abs(number).max(initial=0) <= SMALL for number in added)
        return lone_operand(node) if added and small else None
    return passed_on(node)


def fraction_of(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Returns numerator and denominator of a division, or of a product with a reciprocal.

    Both are None for any other node, and the numerator alone for a Reciprocal.
    """
    if node.op_type == "Div":
        return node.inputs[0], node.inputs[1]
    if node.op_type == "Reciprocal":
        return None, node.inputs[0]
    if node.op_type == "Mul":
        for factor, other in (node.inputs, node.inputs[::-1]):
            producer = None if factor is None else find_score_producer(factor)
            if producer is not None and producer.op_type == "Reciprocal":
                return other, producer.inputs[0]
    return None, None


def same_exponential(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tells whether two values are exponentials of the same value."""
    powers = [exponent_of(one), exponent_of(other)]
    return powers[0] is not None and powers[0] is powers[1]


def exponent_of(value: ir.Value | None) -> ir.Value | None:
    """Returns the z of a value exp(z); None where a value is no exponential."""
    producer = None if value is None else find_score_producer(value)
    if producer is None or producer.op_type != "Exp" or producer.inputs[0] is None:
        return None
    return core_of(producer.inputs[0])


def is_sigmoid(node: ir.Node) -> bool:
    """Tells whether a node is a sigmoid: the operator, 1 / (1 + exp(-z)) or exp(z) / (1 + exp(z))."""
    if node.op_type == "Sigmoid":
        return True
    numerator, denominator = fraction_of(node)
    total = None if denominator is None else find_score_producer(denominator)
    if total is None or total.op_type not in ("Add", "Sum") or len(total.inputs) != 2:
        return False
    for one, power in (total.inputs, total.inputs[::-1]):
        if is_one(one) and exponent_of(power) is not None:
            return node.op_type == "Reciprocal" or is_one(numerator) or same_exponential(numerator, power)
    return False


def is_one(value: ir.Value | None) -> bool:
    """Tells whether a value is the constant 1."""
    number = constant_behind(value)
    return number is not None and number.size > 0 and bool((number == 1).all())


def are_columns(axes: Sequence[int], shape: ir.Shape | None, trail: Sequence[ir.Node], columns: int | None) -> bool:
    """Tells whether axes of a value are the columns of an output: as many, as far as shapes say, and not the images.

    Args:
        axes: the axes of the value.
        shape: the shape of the value; None where it is not known.
        trail: the nodes that rearrange the value to the output, in order.
        columns: the number of columns of the output; None where it is not known.
    """
    if shape is None or not shape.rank():
        return 0 not in axes
    rank = shape.rank()
    places = {axis % rank for axis in axes}
    lengths = [shape[place] for place in places]
    known = columns is not None and all(isinstance(length, int) for length in lengths)
    if known and product(lengths) != columns:
        return False
    if known and all(shape[other] == 1 for other in set(range(rank)) - places):
        return True  # all that there is of one image
    return 0 not in moved_axes(places, trail)


def moved_axes(axes: set[int], trail: Sequence[ir.Node]) -> set[int]:
    """Returns where nodes that rearrange values move axes to; the first axis stays where it is under a Reshape."""
    for node in trail:
        order = node.attributes.get_ints("perm", None) if node.op_type == "Transpose" else None
        if order is not None and max(axes) < len(order):
            axes = {order.index(axis) for axis in axes}
        elif node.op_type == "Transpose" and (shape := node.inputs[0].shape if node.inputs[0] else None):
            axes = {shape.rank() - 1 - axis for axis in axes}
    return axes


def product(lengths: Sequence[object]) -> int:
    """Returns the product of those lengths that are numbers."""
    result = 1
    for length in lengths:
        assert isinstance(length, int)
        result *= length
    return result
