"""Softmax, its logarithm, and the choice of the largest.

* Within each place (over channels): ``m' = m``.
* Over places (attention): a missing place gets no weight, ``softmax(x or −∞)``; ``m' = m``. A soft value counts as
  kept.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646; attention follows from it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at, normalised_axes, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, passes_nothing
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples


@mask_rule("Hardmax", "Softmax", "LogSoftmax")
def mask_softmax(graph: MaskedGraph, node: ir.Node) -> None:
    """Gives a missing place no weight, where it runs over places; the mask stays."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    axis = normalised_axes([node.attributes.get_int("axis", -1)], rank_of(value))[0]
    if axis == state.batch:
        raise RuleError("it runs over the batch")
    if axis in state.axes:
        lowest = np.finfo(dtype_of(value).numpy()).min  # −∞ would make NaN of a row without any kept place
        node.replace_input_with(0, graph.replaced(value, empty=float(lowest)))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@gradient_rule("Softmax")
def vjp_softmax(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``y · (dy − Σ dy · y)``."""
    gradient, output = first_gradient(gradients), node.outputs[0]
    axis = graph.ints(node.attributes.get_int("axis", -1))
    mean = graph.emit("ReduceSum", graph.emit("Mul", gradient, output), axis)
    return [graph.emit("Mul", output, graph.emit("Sub", gradient, mean))]


gradient_rule("Hardmax")(passes_nothing)


@gradient_rule("LogSoftmax")
def vjp_log_softmax(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy − eʸ · Σ dy``."""
    gradient, output = first_gradient(gradients), node.outputs[0]
    total = graph.emit("ReduceSum", gradient, graph.ints(node.attributes.get_int("axis", -1)))
    return [graph.emit("Sub", gradient, graph.emit("Mul", graph.emit("Exp", output), total))]


add_samples(
    "Softmax",
    Sample("over channels", "s = Softmax <axis = 1> (x) y = Conv <pads = [1, 1, 1, 1]> (s, w)", {"w": (3, 4, 3, 3)}),
    Sample("over the width", "y = Softmax <axis = 3> (x)"),
)
add_samples(
    "Hardmax",
    Sample("over channels", "h = Hardmax <axis = 1> (x) y = Mul (h, x)"),
    Sample("over a row", "y = Hardmax (x)"),
)
