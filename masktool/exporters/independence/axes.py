"""Operators that work along some axes and leave the others alone: reductions, softmax, sorts, sums, norms.

Along any axis but the images' they keep the images apart; along the images' axis they mix them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.exporters.independence.elementwise import refuse_length
from masktool.exporters.independence.states import (
    BatchGraph,
    MixesError,
    Rows,
    States,
    UnprovedError,
    axis_of,
    batch_rule,
    listed_axes,
    same,
)
from masktool.exporters.node_inputs import constant_of, input_of

REDUCTIONS = {
    "ReduceL1": "sums",
    "ReduceL2": "sums",
    "ReduceLogSum": "sums",
    "ReduceLogSumExp": "sums",
    "ReduceMax": "takes the maximum",
    "ReduceMean": "takes the mean",
    "ReduceMin": "takes the minimum",
    "ReduceProd": "multiplies",
    "ReduceSum": "sums",
    "ReduceSumSquare": "sums",
}
ALONG = {
    "Softmax": (-1, "normalises"),
    "LogSoftmax": (-1, "normalises"),
    "Hardmax": (-1, "takes the maximum"),
    "LpNormalization": (-1, "normalises"),
    "TopK": (-1, "sorts"),
}
"""The default of the attribute ``axis`` and what happens along that axis, by operator."""
SIGNAL_RANK, SIGNAL_AXIS = 3, 1
"""Rank and time axis of (batch, time, parts), in which DFT's defaults, 1 until opset 19 and -2 from 20 on, agree."""


@batch_rule(*REDUCTIONS)
def batch_reduce(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a reduction along some axes, along all of them where none are given."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    axes = listed_axes(node, 1, rank)
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            return same(node, rows)
        axes = list(range(rank))
    return same(node, reduced(rows, axes, bool(node.attributes.get_int("keepdims", 1)), REDUCTIONS[node.op_type]))


@batch_rule("ArgMax", "ArgMin")
def batch_arg(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an ArgMax or ArgMin, which finds a place along one axis."""
    rows = graph.rows_of(node)
    axis = axis_of(node, graph.rank(node.inputs[0]), 0)
    return same(node, reduced(rows, [axis], bool(node.attributes.get_int("keepdims", 1)), "takes the largest place"))


def reduced(rows: Rows, axes: list[int], keeps: bool, what: str) -> Rows:
    """Returns where the images lie when axes are reduced."""
    refuse_batch(rows, axes, what)
    return rows if keeps else rows.at(rows.axis - sum(axis < rows.axis for axis in axes))


def refuse_batch(rows: Rows, axes: list[int], what: str) -> None:
    """Raises MixesError where an operator works along the images' axis."""
    if rows.axis in axes:
        raise MixesError(f"{what} over the batch")


@batch_rule(*ALONG)
def batch_along(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an operator that works along one axis and keeps the rank, such as Softmax."""
    rows, (default, what) = graph.rows_of(node), ALONG[node.op_type]
    refuse_batch(rows, [axis_of(node, graph.rank(node.inputs[0]), default)], what)
    return same(node, rows)


@batch_rule("CumSum", "CumProd")
def batch_cumulate(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a CumSum or CumProd, whose axis is an input."""
    rows, axis = graph.rows_of(node), constant_of(input_of(node, 1))
    if axis is None:
        raise UnprovedError("the axis that it works along is computed")
    refuse_batch(rows, [int(axis.reshape(-1)[0]) % graph.rank(node.inputs[0])], "sums")
    return same(node, rows)


@batch_rule("DFT")
def batch_dft(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a DFT, which mixes the places along one axis; the last axis holds real and imaginary parts."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    given, stated = input_of(node, 2), node.attributes.get_int("axis", None)
    axis = constant_of(given) if given is not None else None if stated is None else np.array(stated)
    if axis is None and (given is not None or rank != SIGNAL_RANK):
        raise UnprovedError("the axis that it works along is not stated")
    along = SIGNAL_AXIS if axis is None else int(axis.reshape(-1)[0]) % rank
    refuse_batch(rows, [along, rank - 1], "mixes places")
    return same(node, rows)


@batch_rule("LayerNormalization", "RMSNormalization")
def batch_layer_norm(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a norm over one axis and all axes behind it, whose factors may be broadcast."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    refuse_batch(rows, list(range(axis_of(node, rank, -1), rank)), "normalises")
    for value in node.inputs[1:]:
        if value is not None:
            refuse_length(graph, value, rows.axis - rank + graph.rank(value))
    return same(node, rows)


@batch_rule("MeanVarianceNormalization")
def batch_mean_variance(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a MeanVarianceNormalization, whose axes hold the batch by default."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    refuse_batch(rows, [axis % rank for axis in node.attributes.get_ints("axes") or (0, 2, 3)], "normalises")
    return same(node, rows)


@batch_rule("Trilu")
def batch_trilu(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Trilu, which compares the places along the last two axes."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    if rows.axis >= rank - 2:
        raise MixesError("keeps some of the images by their place in the batch")
    return same(node, rows)


@batch_rule("ReverseSequence")
def batch_reverse(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a ReverseSequence, which reverses the time of every row; the lengths may be the images' own."""
    rows = graph.rows(node.inputs[0])
    batch, time = node.attributes.get_int("batch_axis", 1), node.attributes.get_int("time_axis", 0)
    lengths = graph.rows(node.inputs[1])
    if rows is None or (lengths is not None and (rows.axis != batch or lengths != rows.at(0))):
        raise UnprovedError("its lengths and its rows are of different images")
    refuse_batch(rows, [time or 0] + ([batch or 0] if lengths is None else []), "reverses")
    return same(node, rows)
