"""The number of each row of an output that is differentiated, and its gradient with respect to the output.

With y one row of the output and e_i the unit of one of its places:

===========  ==============  ====================
target       number          gradient
===========  ==============  ====================
(i, j, …)    y_ij…           e_ij…
top          max y           e of the first of the largest
sum          Σ y             1
weights      Σ w · y         w, an input in the output's shape
===========  ==============  ====================

A row is what one member of the batch gives; where the output has no batch axis, it is the output as a whole.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dtype_of, rank_of, sizes_of
from masktool.ops.gradients import GradientGraph

Summary = Literal["top", "sum", "weights"]
"""What of a row is differentiated, where that is no single place."""
SUMMARIES: tuple[Summary, ...] = get_args(Summary)
Scalar: TypeAlias = "Summary | tuple[int, ...]"
"""A number of each row: one of ``SUMMARIES``, or the indices of one place into all axes but the batch."""


class ScalarEnd(NamedTuple):
    """The end of a graph whose gradient is wanted.

    Attributes:
        objective: the numbers that are differentiated, (N,), or () of an output without a batch axis.
        seed: the gradient of their sum with respect to the output, in its shape.
        weights: the input that was added; None where there is none.
    """

    objective: ir.Value
    seed: ir.Value
    weights: ir.Value | None = None


def add_scalar_end(
    graph: GradientGraph, output: ir.Value, scalar: Scalar, weights_name: str, *, batched: bool
) -> ScalarEnd:
    """Emits the numbers to differentiate and their gradient.

    Args:
        graph: the graph, behind whose nodes the end is emitted.
        output: the output, of any rank.
        scalar: the number of each row.
        weights_name: the name of the input that ``weights`` adds.
        batched: whether the first axis of the output is the batch.
    """
    if isinstance(scalar, tuple):
        return end_at_place(graph, output, scalar, batched=batched)
    if scalar == "top":
        return end_at_top(graph, output, batched=batched)
    if scalar == "sum":
        return ScalarEnd(summed_rows(graph, output, batched=batched), graph.filled_like(output, 1))
    weights = ir.Value(name=weights_name, shape=output.shape, type=output.type)
    graph.graph.inputs.append(weights)
    weighed = graph.like(output, graph.emit("Mul", output, weights))
    return ScalarEnd(summed_rows(graph, weighed, batched=batched), weights, weights)


def end_at_place(graph: GradientGraph, output: ir.Value, place: tuple[int, ...], *, batched: bool) -> ScalarEnd:
    """Returns the end of one place of each row; ONNX Runtime refuses one that lies outside an open length."""
    first, picked = int(batched), output
    for axis, index in enumerate(place, first):
        picked = graph.emit("Gather", picked, graph.ints(index), axis=axis)
    objective = graph.emit("Reshape", picked, graph.ints(*[-1] * first))
    seed = graph.filled_like(picked, 1)
    if place:
        behind = [
            graph.emit("Sub", graph.length_of(output, axis), graph.ints(index + 1))
            for axis, index in enumerate(place, first)
        ]
        in_front = graph.ints(*[0] * first, *place)
        pads = graph.emit("Concat", in_front, *([graph.ints(0)] if batched else []), *behind, axis=0)
        seed = graph.emit("Pad", seed, pads)
    return ScalarEnd(objective, seed)


def end_at_top(graph: GradientGraph, output: ir.Value, *, batched: bool) -> ScalarEnd:
    """Returns the end of the largest number of each row."""
    rows = graph.emit("Reshape", output, graph.ints(0, -1) if batched else graph.ints(1, -1))
    largest = graph.emit("ReduceMax", rows, graph.ints(1), keepdims=0)
    number = graph.emit("Squeeze", graph.length_of(rows, 1), graph.ints(0))
    scalar_zero, scalar_one = (graph.constant(each, ir.DataType.INT64) for each in (0, 1))
    places = graph.emit("Range", scalar_zero, number, scalar_one)
    wins = graph.emit("Equal", places, graph.emit("ArgMax", rows, axis=1, keepdims=1))
    seed = graph.emit("Reshape", graph.as_type(wins, dtype_of(output)), graph.emit("Shape", output))
    return ScalarEnd(largest if batched else graph.emit("Squeeze", largest, graph.ints(0)), seed)


def summed_rows(graph: GradientGraph, value: ir.Value, *, batched: bool) -> ir.Value:
    """Returns the sum of each row, or of a value without a batch axis the sum of all."""
    axes = range(int(batched), rank_of(value))
    return graph.emit("ReduceSum", value, graph.ints(*axes), keepdims=0) if axes else value


def count_numbers(output: ir.Value, *, batched: bool) -> int | None:
    """Returns how many numbers a row of an output holds; None where a length is open."""
    lengths = sizes_of(output)[int(batched) :]
    return None if None in lengths else int(np.prod([length for length in lengths if length is not None]))


def summands_of(output: np.ndarray, scalar: Scalar, weights: np.ndarray | None, *, batched: bool) -> np.ndarray:
    """Returns numbers whose sum is that of all rows' numbers that are differentiated, as float64."""
    exact = output.astype(np.float64)
    rows = exact if batched else exact[None]
    if isinstance(scalar, tuple):
        place: tuple[Any, ...] = (..., *scalar)
        return np.asarray(rows[place])
    if scalar == "top":
        return np.asarray(rows.reshape(len(rows), -1).max(axis=1))
    return exact if weights is None else exact * weights
