"""Normalisations that divide each number by a norm of its neighbours: no mean is taken off.

* ``LRN`` divides by what neighbouring channels hold, within each place: ``m' = m``.
* ``LpNormalization`` divides by the norm along an axis; over places, by that of the kept ones scaled up to all,
  ``y = x · m / ‖x · m‖ · ‖m‖ / ‖1‖``; ``m' = m``.

Source: the reasoning for means of Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import dtype_of, fixed_sizes, input_at, normalised_axes, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples


@mask_rule("LRN")
def mask_lrn(graph: MaskedGraph, node: ir.Node) -> None:
    """Divides each place by what its neighbouring channels hold: the mask stays, and zeros under it."""
    state = state_of_input(graph, node)
    if {state.batch, *state.axes} & {1}:
        raise RuleError("it sums over neighbouring places, not channels")
    graph.set_state(node.outputs[0], state)


@mask_rule("LpNormalization")
def mask_lp_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Divides by the norm of each place's channels, or by that of the kept places scaled up to all; the mask stays."""
    state, value, output = state_of_input(graph, node), input_at(node, 0), node.outputs[0]
    axis = normalised_axes([node.attributes.get_int("axis", -1)], rank_of(value))[0]
    if axis == state.batch:
        raise RuleError("it normalises over the batch")
    new_state = state.replace(zeroed=False)
    if axis in state.axes:
        reduction, along = norm_of(node), graph.constant([axis], ir.DataType.INT64)
        of_mask, of_ones = (
            graph.emit(reduction, each, along) for each in (state.mask, graph.filled_like(state.mask, 1))
        )
        share = graph.emit("Div", of_mask, of_ones)
        node.replace_input_with(0, graph.weighted(value))
        output = graph.emit_after(output, "Mul", output, graph.as_type(share, dtype_of(output)))
    graph.set_state(output, new_state)


def norm_of(node: ir.Node) -> str:
    """Returns the operator that gives the norm by which an LpNormalization divides."""
    return f"ReduceL{node.attributes.get_int('p', 2)}"


@gradient_rule("LpNormalization")
def vjp_lp_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``(dy − Σ dy · y · s) / norm`` with s = y, or sign(x) for the sum of absolute values; 0 where the norm is 0."""
    gradient, value, output = first_gradient(gradients), input_at(node, 0), node.outputs[0]
    axis = graph.ints(node.attributes.get_int("axis", -1))
    norm = graph.emit(norm_of(node), value, axis)
    total = graph.emit("ReduceSum", graph.emit("Mul", gradient, output), axis)
    direction = output if norm_of(node) == "ReduceL2" else graph.sign(value)
    across = graph.emit("Sub", gradient, graph.emit("Mul", direction, total))
    return [graph.masked(graph.emit("Div", across, graph.divisor(norm)), graph.positive(norm))]


@gradient_rule("LRN")
def vjp_lrn(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy · s^−β − 2αβ · x · mean(dy · y / s)``, over the channels that see this one; s = k + α · mean(x²).

    A window over channels is an average pool over the first of two axes: channels, and all places in one.
    """
    gradient, value, output, own = first_gradient(gradients), input_at(node, 0), node.outputs[0], node.attributes
    alpha, beta, size = own.get_float("alpha", 1e-4), own.get_float("beta", 0.75), own["size"].as_int()
    before, after = (size - 1) // 2, size // 2
    base = pool_channels(graph, value, graph.emit("Mul", value, value), before, after)
    base = graph.emit("Mul", base, graph.number(alpha, value))
    base = graph.emit("Add", base, graph.number(own.get_float("bias", 1.0), value))
    straight = graph.emit("Mul", gradient, graph.emit("Pow", base, graph.number(-beta, value)))
    shares = graph.emit("Div", graph.emit("Mul", gradient, output), base)
    across = graph.emit("Mul", value, pool_channels(graph, value, shares, after, before))
    return [graph.emit("Sub", straight, graph.emit("Mul", across, graph.number(2 * alpha * beta, value)))]


def pool_channels(graph: GradientGraph, like: ir.Value, value: ir.Value, before: int, after: int) -> ir.Value:
    """Returns the means over neighbouring channels, where what lies outside is 0; the value has the shape of ``like``.

    Args:
        graph: the graph of gradients.
        like: the value whose shape the result has, (N, C, ...).
        value: the value to take means of, in the shape of ``like``.
        before: the number of channels in front of each channel that its mean sees.
        after: the number of channels behind each channel that its mean sees.
    """
    rows = graph.emit("Reshape", value, graph.ints(0, 1, fixed_sizes(like)[1], -1))
    window = {"kernel_shape": [before + 1 + after, 1], "pads": [before, 0, after, 0], "count_include_pad": 1}
    return graph.reshaped_as(like, graph.emit("AveragePool", rows, **window))


add_samples("LRN", Sample("before a pool", "n = LRN <size = 3> (x) y = MaxPool <kernel_shape = [2, 2]> (n)"))
add_samples(
    "LpNormalization",
    Sample(
        "of channels", "n = LpNormalization <axis = 1> (x) y = Conv <pads = [1, 1, 1, 1]> (n, w)", {"w": (3, 4, 3, 3)}
    ),
    Sample("of rows, by absolute values", "y = LpNormalization <axis = 3, p = 1> (x)"),
    Sample("of columns", "y = LpNormalization <axis = 2> (x)"),
)
