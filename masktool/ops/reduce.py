"""Means, sums, norms, maxima and minima along axes.

Over places they count the kept ones only: ``r(x · m) · r(1) / r(m)`` for means, sums and norms, the extreme of what is
kept for maxima and minima. The mask loses these axes, ``m' = max(m)`` along them; on the last one it is spent. An empty
mask gives 0. Along other axes they stay within each place: the mask stays.

``ReduceLogSum`` and ``ReduceLogSumExp`` are logarithms of such sums: ``log Σ x · m + log(Σ 1 / Σ m)``, and the same of
``exp(x)``, where ``x + log m`` stands for ``exp(x) · m``.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import constant_input, dtype_of, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, passes_nothing
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, state_of_input
from masktool.ops.kept import average_kept, extreme_kept
from masktool.ops.samples import Sample, add_samples

MINUS_INFINITY, INFINITY = float("-inf"), float("inf")


@mask_rule("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare")
def mask_reduce(graph: MaskedGraph, node: ir.Node) -> None:
    """Counts kept places only and scales up to all, where it reduces places at all."""
    axes, state = reduced_axes(graph, node), state_of_input(graph, node)
    new_state = state_behind(graph, node, state, axes)
    output = node.outputs[0]
    if set(axes) & set(state.axes):
        output = average_kept(graph, node, keepdims=node.attributes.get_int("keepdims", 1))
    graph.set_state(output, new_state)


@mask_rule("ReduceLogSum", "ReduceLogSumExp")
def mask_reduce_log_sum(graph: MaskedGraph, node: ir.Node) -> None:
    """Sums over kept places only and scales the sum up to all, inside the logarithm."""
    axes, state = reduced_axes(graph, node), state_of_input(graph, node)
    new_state, value, output = state_behind(graph, node, state, axes), input_at(node, 0), node.outputs[0]
    if set(axes) & set(state.axes):
        keepdims, along = node.attributes.get_int("keepdims", 1), graph.constant(axes, ir.DataType.INT64)
        sums = [
            graph.emit("ReduceSum", each, along, keepdims=keepdims)
            for each in (state.mask, graph.filled_like(state.mask, 1))
        ]
        rest = graph.emit("Log", graph.emit("Div", sums[1], graph.divisor(sums[0])))
        some_kept = graph.positive(sums[0])
        node.replace_input_with(0, weighted_within_log(graph, node, value))
        output = graph.emit_after(output, "Add", output, graph.as_type(rest, dtype_of(output)))
        output = graph.emit_after(output, "Where", some_kept, output, graph.constant(0, dtype_of(output)))
    graph.set_state(output, new_state)


def weighted_within_log(graph: MaskedGraph, node: ir.Node, value: ir.Value) -> ir.Value:
    """Returns x · m for a logarithm of a sum; for one of exponentials x + log m, the lowest number at m = 0."""
    if node.op_type == "ReduceLogSum":
        return graph.weighted(value)
    lowest = float(np.finfo(dtype_of(value).numpy()).min)  # −∞ would make NaN where no place is kept
    logs = graph.emit("Log", graph.divisor(graph.known_state(value).mask))
    moved = graph.emit("Add", value, graph.as_type(logs, dtype_of(value)))
    moved = graph.emit("Where", graph.kept(value), moved, graph.constant(lowest, dtype_of(value)))
    moved.shape = value.shape
    return moved


@mask_rule("ReduceMax", "ReduceMin")
def mask_reduce_extreme(graph: MaskedGraph, node: ir.Node) -> None:
    """Takes the extreme over kept places, where it takes it over places at all."""
    axes, state = reduced_axes(graph, node), state_of_input(graph, node)
    new_state = state_behind(graph, node, state, axes)
    output = node.outputs[0]
    if set(axes) & set(state.axes):
        keepdims = node.attributes.get_int("keepdims", 1)
        empty = MINUS_INFINITY if node.op_type == "ReduceMax" else INFINITY
        output = extreme_kept(graph, node, "ReduceMax", empty=empty, keepdims=keepdims)
    graph.set_state(output, new_state)


@mask_rule("ArgMax", "ArgMin")
def mask_arg_extreme(graph: MaskedGraph, node: ir.Node) -> None:
    """Chooses a channel within each place: the mask stays."""
    state = state_of_input(graph, node)
    axes = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))
    if {state.batch, *state.axes} & set(axes):
        raise RuleError(f"it chooses a place of the image, along axis {axes[0]}")
    graph.set_state(node.outputs[0], state_behind(graph, node, state, axes))


def reduced_axes(graph: MaskedGraph, node: ir.Node) -> list[int]:
    """Returns the axes that a node reduces, in ascending order.

    Raises:
        RuleError: the node reduces the batch.
    """
    state = state_of_input(graph, node)
    axes = axes_to_reduce(node)
    if state.batch in axes:
        raise RuleError(f"it reduces axes {axes}, among them the batch")
    return axes


def state_behind(graph: MaskedGraph, node: ir.Node, state: Masked, axes: list[int]) -> Masked | None:
    """Returns the state behind a reduction of ``axes``; None when the mask does not vary along the other axes."""
    left = tuple(axis for axis in state.axes if axis not in axes)
    if not left:
        return None
    keepdims = node.attributes.get_int("keepdims", 1)
    mask = state.mask
    if axes and (left != state.axes or not keepdims):
        mask = graph.emit("ReduceMax", mask, graph.constant(axes, ir.DataType.INT64), keepdims=keepdims)
    new_state = state.recut(mask, axes, axes=left, zeroed=False)
    return new_state if keepdims else new_state.moved(lambda axis: axis - sum(other < axis for other in axes))


gradient_rule("ArgMax", "ArgMin")(passes_nothing)


@gradient_rule("ReduceMean", "ReduceSum")
def vjp_reduce_sum(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Repeats the gradient along the reduced axes."""
    value, axes = input_at(node, 0), axes_to_reduce(node)
    gradient = with_axes(graph, node, first_gradient(gradients), axes)
    lengths = [sizes_of(value)[axis] for axis in axes]
    if None in lengths:
        raise RuleError(f"it reduces {value.name!r} along axes whose lengths are not fixed")
    if node.op_type == "ReduceMean":
        count = float(np.prod([length for length in lengths if length is not None]))
        gradient = graph.emit("Div", gradient, graph.number(count, value))
    target = [length if axis in axes else 1 for axis, length in enumerate(sizes_of(value))]
    return [graph.in_blocks(value, graph.emit("Expand", gradient, graph.ints(*(length or 1 for length in target))))]


@gradient_rule("ReduceL1", "ReduceL2", "ReduceSumSquare")
def vjp_reduce_norm(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``sign(x)``, ``x / y`` (0 for a norm of 0) or ``2x``, times the gradient."""
    value, axes = input_at(node, 0), axes_to_reduce(node)
    gradient = with_axes(graph, node, first_gradient(gradients), axes)
    if node.op_type == "ReduceL1":
        return [graph.emit("Mul", graph.sign(value), gradient)]
    if node.op_type == "ReduceL2":
        norm = graph.divisor(with_axes(graph, node, node.outputs[0], axes))
        return [graph.emit("Mul", value, graph.emit("Div", gradient, norm))]
    return [graph.emit("Mul", value, graph.emit("Mul", gradient, graph.number(2, value)))]


@gradient_rule("ReduceLogSum", "ReduceLogSumExp")
def vjp_reduce_log_sum(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy · exp(−y)``, and ``dy · exp(x − y)``."""
    value, axes = input_at(node, 0), axes_to_reduce(node)
    gradient, output = (with_axes(graph, node, part, axes) for part in (first_gradient(gradients), node.outputs[0]))
    if node.op_type == "ReduceLogSumExp":
        return [graph.emit("Mul", gradient, graph.emit("Exp", graph.emit("Sub", value, output)))]
    share = graph.emit("Mul", gradient, graph.emit("Exp", graph.emit("Neg", output)))
    return [graph.emit("Expand", share, graph.emit("Shape", value))]


@gradient_rule("ReduceMax", "ReduceMin")
def vjp_reduce_extreme(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Gives the gradient to the extreme numbers, in equal shares."""
    value, axes = input_at(node, 0), axes_to_reduce(node)
    gradient, extreme = (with_axes(graph, node, part, axes) for part in (first_gradient(gradients), node.outputs[0]))
    return [graph.shared_by_equals(value, extreme, gradient, axes)]


def axes_to_reduce(node: ir.Node) -> list[int]:
    """Returns the axes that a node reduces, in ascending order."""
    rank = rank_of(input_at(node, 0))
    listed = constant_input(node, 1, "the list of axes")
    if listed is not None and listed.size:
        return sorted(normalised_axes(listed.tolist(), rank))
    return [] if node.attributes.get_int("noop_with_empty_axes", 0) == 1 else list(range(rank))


def with_axes(graph: GradientGraph, node: ir.Node, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Returns a value in the shape of a node's output, with the reduced axes put back as axes of length 1."""
    if node.attributes.get_int("keepdims", 1) or not axes:
        return value
    return graph.emit("Unsqueeze", value, graph.ints(*axes))


add_samples(
    "ReduceMean",
    Sample("over the image", "y = ReduceMean <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}),
    Sample("negative axes, kept", "y = ReduceMean <keepdims = 1> (x, axes)", constants={"axes": (-1, -2)}),
    Sample("over channels", "y = ReduceMean <keepdims = 1> (x, axes)", constants={"axes": (1,)}),
    Sample(
        "channels last",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) y = ReduceMean <keepdims = 0> (t, axes)",
        constants={"axes": (1, 2)},
        ones_tolerance=1e-6,  # without the mask, ONNX Runtime moves the Transpose behind the mean
    ),
    Sample(
        "over the height alone, then over the width",
        "h = ReduceMean <keepdims = 1> (x, a) c = Conv (h, w) r = Relu (c) y = ReduceMean <keepdims = 0> (r, b)",
        {"w": (3, 4, 1, 1)},
        {"a": (2,), "b": (2, 3)},
    ),
    Sample(
        "of everything: a layer norm written out",
        "m = ReduceMean <keepdims = 1> (x, a) d = Sub (x, m) q = Mul (d, d) v = ReduceMean <keepdims = 1> (q, a) "
        "e = Constant <value_float = 0.00001> () z = Add (v, e) s = Sqrt (z) n = Div (d, s) "
        "y = Conv <pads = [1, 1, 1, 1]> (n, w)",
        {"w": (3, 4, 3, 3)},
        {"a": (1, 2, 3)},
        ones_tolerance=1e-5,  # without the mask, ONNX Runtime fuses it into one LayerNormalization
    ),
)
for op_type in ("ReduceSum", "ReduceL2", "ReduceSumSquare"):
    add_samples(
        op_type, Sample("over the image", f"y = {op_type} <keepdims = 1> (x, axes)", constants={"axes": (2, 3)})
    )
add_samples(
    "ReduceMax",
    Sample("over the image", "y = ReduceMax <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}),
    Sample("over channels", "y = ReduceMax <keepdims = 1> (x, axes)", constants={"axes": (1,)}),
)
add_samples("ReduceMin", Sample("over the image", "y = ReduceMin <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}))
add_samples("ArgMax", Sample("over channels", "i = ArgMax <axis = 1> (x) y = Cast <to = 1> (i)"))
add_samples(
    "ReduceLogSumExp",
    Sample("over the image", "y = ReduceLogSumExp <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}),
    Sample("over channels", "y = ReduceLogSumExp <keepdims = 1> (x, axes)", constants={"axes": (1,)}),
)
add_samples(
    "ReduceLogSum",
    Sample("over the image", "a = Abs (x) y = ReduceLogSum <keepdims = 1> (a, axes)", constants={"axes": (2, 3)}),
)
