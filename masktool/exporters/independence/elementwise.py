"""Operators that work element by element, with broadcasting: elements of one image may not meet another image's."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from masktool.exporters.independence.lengths import ONE, Product
from masktool.exporters.independence.states import (
    BatchGraph,
    Count,
    MixesError,
    Rows,
    States,
    UnprovedError,
    batch_rule,
    count_rule,
    same,
    shared,
)

# fmt: off
UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
BROADCAST = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "CastLike", "Clip", "Div", "Dropout", "Equal",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow",
    "Sub", "Sum", "Where", "Xor",
)
# fmt: on
LARGEST: Mapping[ir.DataType | None, int] = {ir.DataType.INT32: 2**20, ir.DataType.INT64: 2**52}
"""Factors of a length up to which thousands of images do not make it overflow, by element type."""


@batch_rule(*UNARY)
def batch_unary(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an operator on single elements: the images stay on their axis."""
    return same(node, graph.rows(node.inputs[0]))


@batch_rule(*BROADCAST)
def batch_broadcast(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an operator that broadcasts: inputs hold the images on one axis, counted from the last, or not at all."""
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        raise UnprovedError("draws random numbers where it is told to train")
    inputs = [value for value in node.inputs if value is not None]
    rank = max(graph.rank(value) for value in inputs)
    return same(node, broadcast_rows(graph, inputs, rank))


def broadcast_rows(graph: BatchGraph, inputs: list[ir.Value], rank: int) -> Rows:
    """Returns where the images lie in a result of values that are broadcast to ``rank`` axes.

    Raises:
        MixesError: images meet other images, or a value differs along the batch.
    """
    found = []
    for value in inputs:
        rows = graph.rows(value)
        if rows is not None:
            found.append(rows.at(rows.axis + rank - graph.rank(value)))
    result = shared(found)
    for value in inputs:
        if graph.state(value) is None or isinstance(graph.state(value), Count):
            refuse_length(graph, value, result.axis - rank + graph.rank(value))
    return result


def refuse_length(graph: BatchGraph, value: ir.Value, axis: int) -> None:
    """Raises BatchRuleError where a value that is not the images' has, or may have, several places along the batch."""
    if axis < 0:
        return
    length = graph.lengths(value)[axis]
    if length is None or length.symbols:
        raise UnprovedError("meets the batch with an axis of open length")
    if length != ONE:
        raise MixesError(f"has another number for each of {length.number} places of the batch")


@batch_rule("QuantizeLinear", "DequantizeLinear")
def batch_quantize(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a quantisation whose scales are the same for all images: one, or one per place along another axis."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    scale = node.inputs[1]
    blocks = graph.rank(scale) > 1  # which have the rank of the data, and a row for each place of the batch
    if blocks or (graph.rank(scale) and node.attributes.get_int("axis", 1) % rank == rows.axis):
        raise UnprovedError("its scales lie along the batch")
    return same(node, rows)


@batch_rule("DynamicQuantizeLinear")
def batch_dynamic_quantize(graph: BatchGraph, node: ir.Node) -> States:
    """Refuses a DynamicQuantizeLinear: it measures one scale for the whole tensor."""
    del graph, node
    raise MixesError("measures one scale over the whole batch")


@count_rule("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")
def count_same(graph: BatchGraph, node: ir.Node) -> States:
    """Follows lengths through an operator that keeps the elements; a cast to floating point ends that."""
    state = graph.state(node.inputs[0])
    if isinstance(state, Count) and not varies_beside(graph, node, 0):
        most = LARGEST.get(node.outputs[0].dtype)
        keeps = most is not None and all(each is None or abs(each.number) <= most for each in state.elements or ())
        return same(node, state if keeps or node.op_type != "Cast" else Count(state.varies))
    return same(node, Count(varies_beside(graph, node, None)))


@count_rule("Add", "Sub", "Mul", "Div")
def count_arithmetic(graph: BatchGraph, node: ir.Node) -> States:
    """Follows arithmetic on single lengths and on vectors of lengths, as far as the results are products of symbols."""
    left, right = (graph.elements(value) for value in node.inputs)
    unknown = Count(varies_beside(graph, node, None))
    if left is None or right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
        return same(node, unknown)
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    elements = tuple(calculate(node.op_type, first, second) for first, second in pairs)
    return same(node, count_of_lengths(graph, elements) if None not in elements else unknown)


def calculate(op_type: str, left: Product | None, right: Product | None) -> Product | None:
    """Returns the result of integer arithmetic on two lengths, None where it is no product of symbols."""
    if left is None or right is None:
        return None
    if op_type == "Mul":
        product = left.times(right)
        return product if abs(product.number) <= LARGEST[ir.DataType.INT64] else None
    if op_type == "Div":
        return left.over(right)
    if left.symbols != right.symbols:
        return None
    return Product(left.number + (right.number if op_type == "Add" else -right.number), left.symbols)


def count_of_lengths(graph: BatchGraph, elements: tuple[Product | None, ...]) -> Count:
    """Returns the state of a vector of lengths."""
    return Count(any(each is None or graph.batch.symbols[0] in each.symbols for each in elements), elements)


def varies_beside(graph: BatchGraph, node: ir.Node, index: int | None) -> bool:
    """Tells whether an input, other than the one at ``index``, depends on the number of images."""
    states = [graph.state(value) for position, value in enumerate(node.inputs) if position != index]
    return any(isinstance(state, Count) and state.varies for state in states)
