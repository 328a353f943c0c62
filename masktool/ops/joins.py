"""Operators that join several maps place by place: residual additions, gates, choices.

* The smaller mask wins, ``m' = min(m₁, m₂, …)``. A weight, or a gate of shape (N, C, 1, 1), leaves the mask as it is.
* What divides, or is raised to a power, is 1 under the mask.

Gradients: the partial derivatives, summed over what was broadcast. Of equal maxima or minima the first gets all.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (there the product, which for binary masks
is the minimum).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, passes_nothing
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, share_batch
from masktool.ops.samples import Sample, add_samples

JOINS = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
GUARDED_INPUT = {"Div": 1, "Pow": 0}


@mask_rule(*JOINS)
def mask_join(graph: MaskedGraph, node: ir.Node) -> None:
    """Joins maps: the smaller mask wins."""
    output = node.outputs[0]
    states = []
    for index, value in enumerate(node.inputs):
        state = state_in_output(graph, value, output)
        if state is not None and state.axes:
            states.append(state)
        elif state is not None:  # a single place, broadcast to all: 0 where it is missing
            node.replace_input_with(index, graph.zeroed(input_at(node, index)))
    guarded = GUARDED_INPUT.get(node.op_type)  # an arbitrary number there must not become infinity or no number
    if guarded is not None and graph.state(node.inputs[guarded]) is not None:
        node.replace_input_with(guarded, graph.replaced(input_at(node, guarded), empty=1))
    graph.set_state(output, smallest(graph, states) if states else None)


def smallest(graph: MaskedGraph, states: Sequence[Masked]) -> Masked:
    """Returns the state of a value that depends on several: the minimum of their masks.

    Raises:
        RuleError: the images lie on different axes.
    """
    first = states[0]
    if not share_batch(states):
        raise RuleError("it joins values whose batches lie on different axes")
    axes = sorted({axis for state in states for axis in state.axes})
    merged = {axis: parts for axis, parts in first.merged.items() if all(s.merged.get(axis) == parts for s in states)}
    mask = graph.smallest_mask(states)
    return first.replace(mask=mask, axes=tuple(axes), zeroed=False, merged=merged)


def state_in_output(graph: MaskedGraph, value: ir.Value | None, output: ir.Value) -> Masked | None:
    """Returns a map's state with its axes counted as the broadcast output counts them, without those of length 1."""
    state = graph.state(value)
    if state is None or value is None:
        return None
    rank, shift = rank_of(value), rank_of(output) - rank_of(value)
    mask = graph.moved_mask(state.mask, {axis: axis + shift for axis in range(rank)}, rank, rank + shift)
    spread = {axis for axis in state.axes if sizes_of(value)[axis] == 1 != sizes_of(output)[axis + shift]}
    axes = tuple(axis for axis in state.axes if axis not in spread)
    return state.replace(axes=axes).moved(lambda axis: axis + shift, mask=mask)


gradient_rule("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")(passes_nothing)


def summed(graph: GradientGraph, node: ir.Node, parts: Sequence[ir.Value | None]) -> Gradients:
    """Returns the gradients of a node's inputs, each summed to the shape of its input."""
    return [
        None if part is None or value is None else graph.summed_to(value, part, node.outputs[0])
        for value, part in zip(node.inputs, parts, strict=True)
    ]


@gradient_rule("Add", "Mean", "Sub", "Sum")
def vjp_sum(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Gives every summand the gradient, with its sign or share."""
    gradient = first_gradient(gradients)
    if node.op_type == "Mean":
        gradient = graph.emit("Mul", gradient, graph.number(1 / len(node.inputs), gradient))
    parts = [gradient if graph.needs(value) else None for value in node.inputs]
    if node.op_type == "Sub" and parts[1] is not None:
        parts[1] = graph.emit("Neg", gradient)
    return summed(graph, node, parts)


@gradient_rule("Mul")
def vjp_mul(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Multiplies with the other factor."""
    gradient, (left, right) = first_gradient(gradients), (input_at(node, 0), input_at(node, 1))
    return summed(
        graph,
        node,
        [
            graph.emit("Mul", gradient, right) if graph.needs(left) else None,
            graph.emit("Mul", gradient, left) if graph.needs(right) else None,
        ],
    )


@gradient_rule("Div")
def vjp_div(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy / b``, and ``−dy / b · y``."""
    share = graph.emit("Div", first_gradient(gradients), input_at(node, 1))
    by_divisor = None
    if graph.needs(node.inputs[1]):
        by_divisor = graph.emit("Neg", graph.emit("Mul", share, node.outputs[0]))
    return summed(graph, node, [share if graph.needs(node.inputs[0]) else None, by_divisor])


@gradient_rule("Mod")
def vjp_mod(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy``, and ``−dy · (a − y) / b``, as y = a − b · q with a whole number q."""
    gradient, dividend, divisor = first_gradient(gradients), input_at(node, 0), input_at(node, 1)
    by_divisor = None
    if graph.needs(divisor):
        quotient = graph.emit("Div", graph.emit("Sub", dividend, node.outputs[0]), divisor)
        by_divisor = graph.emit("Neg", graph.emit("Mul", gradient, quotient))
    return summed(graph, node, [gradient if graph.needs(dividend) else None, by_divisor])


@gradient_rule("Pow")
def vjp_pow(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy · p · xᵖ⁻¹``, and ``dy · y · log(x)``."""
    gradient, base, output = first_gradient(gradients), input_at(node, 0), node.outputs[0]
    power = graph.as_type(input_at(node, 1), dtype_of(base))
    parts: list[ir.Value | None] = [None, None]
    if graph.needs(base) and not is_everywhere(node, 1, 0):
        lower = graph.emit("Sub", power, graph.number(1, base))
        falling = base if is_everywhere(node, 1, 2) else graph.emit("Pow", base, lower)
        parts[0] = graph.emit("Mul", gradient, graph.emit("Mul", falling, power))
    if graph.needs(node.inputs[1]):
        parts[1] = graph.emit("Mul", gradient, graph.emit("Mul", output, graph.emit("Log", base)))
    return summed(graph, node, parts)


def is_everywhere(node: ir.Node, index: int, number: float) -> bool:
    """Whether an input is a constant with one number in all places."""
    tensor = ir.convenience.get_const_tensor(input_at(node, index))
    return tensor is not None and bool((tensor.numpy() == number).all())


@gradient_rule("Max", "Min")
def vjp_extreme(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Gives the gradient to the first of the inputs that holds the extreme number."""
    left, output = first_gradient(gradients), node.outputs[0]
    parts: list[ir.Value | None] = []
    for index in range(len(node.inputs)):
        value = input_at(node, index)
        wins = graph.emit("Equal", value, output)
        parts.append(graph.masked(left, wins) if graph.needs(value) else None)
        left = graph.zero_where(left, wins)
    return summed(graph, node, parts)


@gradient_rule("PRelu")
def vjp_prelu(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Scales the gradient by the slope where x is not positive; the slope gets dy · x there."""
    gradient, value, slope = first_gradient(gradients), input_at(node, 0), input_at(node, 1)
    rises = graph.positive(value)
    parts: list[ir.Value | None] = [None, None]
    if graph.needs(value):
        parts[0] = graph.emit("Where", rises, gradient, graph.emit("Mul", gradient, slope))
    if graph.needs(slope):
        parts[1] = graph.zero_where(graph.emit("Mul", gradient, value), rises)
    return summed(graph, node, parts)


@gradient_rule("Where")
def vjp_where(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Gives each place's gradient to the input chosen there, whatever that of the other would be (0 · ∞ is NaN)."""
    gradient, condition = first_gradient(gradients), input_at(node, 0)
    chosen = graph.masked(gradient, condition) if graph.needs(node.inputs[1]) else None
    other = graph.zero_where(gradient, condition) if graph.needs(node.inputs[2]) else None
    return summed(graph, node, [None, chosen, other])


add_samples(
    "Div",
    Sample("by a map", "e = Exp (x) z = Relu (x) c = Add (z, e) d = Div (x, c) y = GlobalAveragePool (d)"),
)
add_samples(
    "Add",
    Sample("constant, then a convolution", "h = Add (x, b) y = Conv (h, w)", {"b": (4, 1, 1), "w": (3, 4, 3, 3)}),
    Sample(
        "residual with stride",
        "p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, v) s = Conv <strides = [2, 2]> (x, w) y = Add (p, s)",
        {"v": (3, 4, 3, 3), "w": (3, 4, 1, 1)},
    ),
)
add_samples(
    "Mul",
    Sample(
        "squeeze and excitation",
        "p = GlobalAveragePool (x) q = Conv (p, w) g = Sigmoid (q) y = Mul (x, g)",
        {"w": (4, 4, 1, 1)},
    ),
)
add_samples(
    "Sum",
    Sample("three maps", "a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu (x) y = Sum (x, a, b)", {"w": (4, 4, 3, 3)}),
)
