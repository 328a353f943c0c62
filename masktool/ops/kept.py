"""Statistics over kept places: what pooling, reductions and normalisations share.

With r any of mean, sum, sum of squares, L1, L2 and Lp norm, over a window or over axes, the masked version is
``r(x · m) · r(1) / r(m)``: what r would give if the missing places were like the kept ones. It is 0 where nothing is
kept, and exactly r under a mask of ones.

Source: Balasubramanian and Feizi, 2023, section 3, https://arxiv.org/abs/2211.14646 (global average pooling).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at
from masktool.ops.graph import MaskedGraph


def average_kept(graph: MaskedGraph, node: ir.Node, **attributes: Any) -> ir.Value:
    """Turns an averaging node into one over kept places: ``r(x · m) · r(1) / r(m)``.

    Args:
        graph: the graph under rewriting.
        node: the averaging node; its further inputs (axes) serve all three averages.
        attributes: the node's own attributes, for the averages of the mask.

    Returns:
        The value that takes the place of the node's output.
    """
    value, others = input_at(node, 0), node.inputs[1:]
    mask = graph.known_state(value).mask
    average_of_mask = graph.emit(node.op_type, mask, *others, **attributes)
    average_of_ones = graph.emit(node.op_type, graph.filled_like(mask, 1), *others, **attributes)
    factor = graph.emit("Div", average_of_ones, graph.divisor(average_of_mask))
    node.replace_input_with(0, graph.weighted(value))
    output = node.outputs[0]
    return graph.emit_after(output, "Mul", output, graph.as_type(factor, dtype_of(output)))


def extreme_kept(graph: MaskedGraph, node: ir.Node, largest: str, *, empty: float, **attributes: Any) -> ir.Value:
    """Turns a maximum or minimum into one over kept places; 0 where nothing is kept.

    Args:
        graph: the graph under rewriting.
        node: the maximum or minimum; its further inputs (axes) serve for the mask too.
        largest: the operator that gives the maximum of the mask over the same places.
        empty: the number that loses against every other: −∞ for a maximum, ∞ for a minimum.
        attributes: the node's own attributes, for the maximum of the mask.

    Returns:
        The value that takes the place of the node's output.
    """
    value, others = input_at(node, 0), node.inputs[1:]
    some_kept = graph.positive(graph.emit(largest, graph.known_state(value).mask, *others, **attributes))
    node.replace_input_with(0, graph.replaced(value, empty=empty))
    output = node.outputs[0]
    return graph.emit_after(output, "Where", some_kept, output, graph.constant(0, dtype_of(output)))


@dataclasses.dataclass(frozen=True)
class Centred:
    """The values by which a normalising operator sees kept places only: y becomes ``y · f + b · (1 − f) + a · shift``.

    y is the operator's result, a its scale and b its bias.

    Attributes:
        value: the operator's input with the mean of the kept places at every missing place.
        factor: f, float32, of length 1 along the axes of the statistics; 1 under a mask of ones.
        shift: the shift, float32, of length 1 along the axes of the statistics; 0 under a mask of ones.
    """

    value: ir.Value
    factor: ir.Value
    shift: ir.Value


def centred_on_kept(graph: MaskedGraph, value: ir.Value, axes: Sequence[int], epsilon: float) -> Centred:
    """Emits the nodes that correct the statistics of a normalising operator, so that the operator itself can stay.

    With μ and σ² the mean and variance of the kept places, weighted by a soft mask, and with ν and w those that the
    operator finds when every missing place holds μ: ``(x − μ) / √(σ² + ε) = ((x − ν) / √(w + ε)) · f + shift``, where
    ``f = √((w + ε) / (σ² + ε))`` and ``shift = (ν − μ) / √(σ² + ε)``. Under a mask of ones both are exact.

    Args:
        graph: the graph under rewriting.
        value: the operator's input, floating point, with a mask that varies along some of ``axes``.
        axes: the axes along which the statistics are taken; in single precision, since half would lose most of them.
        epsilon: the number that the operator adds to the variance.
    """
    mask = graph.known_state(value).mask
    along, wide = graph.constant(list(axes), ir.DataType.INT64), graph.as_type(value, ir.DataType.FLOAT)
    share = graph.divisor(graph.emit("ReduceMean", mask, along))
    mean = graph.emit("Div", graph.emit("ReduceMean", graph.emit("Mul", wide, mask), along), share)
    centred = graph.emit("Where", graph.kept(value), wide, mean)
    centred.shape = value.shape
    found_mean = graph.emit("ReduceMean", centred, along)
    from_found, from_mean = graph.emit("Sub", centred, found_mean), graph.emit("Sub", centred, mean)
    found = graph.emit("ReduceMean", graph.emit("Mul", from_found, from_found), along)
    squares = graph.emit("Mul", graph.emit("Mul", from_mean, from_mean), mask)
    variance = graph.emit("Div", graph.emit("ReduceMean", squares, along), share)
    tiny = graph.constant(epsilon, ir.DataType.FLOAT)
    wanted = graph.emit("Add", variance, tiny)
    factor = graph.emit("Sqrt", graph.emit("Div", graph.emit("Add", found, tiny), wanted))
    shift = graph.emit("Div", graph.emit("Sub", found_mean, mean), graph.emit("Sqrt", wanted))
    return Centred(graph.as_type(centred, dtype_of(value)), factor, shift)
