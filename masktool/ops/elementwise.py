"""Operators that work on each place of the image by itself.

* One map (activations, batch normalisation, casts): ``m' = m``. Where f(0) ≠ 0 the output under the mask is no longer
  0, and is set to 0 again by the next operator that looks beyond its own pixel.
* Functions that are not defined everywhere see a 1 under the mask, a cast to a narrower type sees a 0.
* Two and more maps (residual addition, gates that are maps): the smaller mask wins, ``m' = min(m₁, m₂, …)``. A
  weight, or a gate of shape (N, C, 1, 1), leaves the mask as it is.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (there the product, which for binary masks
is the minimum).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at, rank_of, sizes_of
from masktool.ops.graph import Masked, MaskedGraph, share_batch, state_of_input
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule

ZERO_PRESERVING = (
    "Abs", "Celu", "Ceil", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu",
    "Round", "Selu", "Shrink", "Sign", "Sin", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
JOINS = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
GUARDED_INPUT = {"Div": 1, "Pow": 0}
OTHER_ACTIVATIONS = ("Clip", "Cos", "HardSigmoid", "Sigmoid", "Softplus")


@mask_rule(*ZERO_PRESERVING)
def mask_zero_preserving(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask, and the zeros under it, since f(0) = 0."""
    graph.set_state(node.outputs[0], graph.state(input_at(node, 0)))


@mask_rule(*OTHER_ACTIVATIONS, "BatchNormalization", "Not")
def mask_activation(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask; f(0) may differ from 0."""
    state = state_of_input(graph, node)
    if node.op_type == "BatchNormalization" and {state.batch, *state.axes} & {1}:
        raise RuleError("it normalises an axis of the image, not the channels")
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("Exp", "Log", "Reciprocal", "Sqrt")
def mask_guarded(graph: MaskedGraph, node: ir.Node) -> None:
    """Computes f(1) under the mask: of an arbitrary number, f may be infinite or no number."""
    state = state_of_input(graph, node)
    node.replace_input_with(0, graph.replaced(input_at(node, 0), empty=1))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


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
    """Returns the state of a value that needs all of several: the minimum of their masks.

    Raises:
        RuleError: the images lie on different axes.
    """
    first = states[0]
    if not share_batch(states):
        raise RuleError("it joins values whose batches lie on different axes")
    axes = sorted({axis for state in states for axis in state.axes})
    merged = {axis: parts for axis, parts in first.merged.items() if all(s.merged.get(axis) == parts for s in states)}
    masks = list(dict.fromkeys(state.mask for state in states))
    mask = masks[0]
    for other in masks[1:]:
        mask = graph.emit("Min", mask, other)
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


@mask_rule("Cast", "CastLike")
def mask_cast(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask; an arbitrary number under it may not fit into a narrower type, and is set to 0 before."""
    state, value, output = state_of_input(graph, node), input_at(node, 0), node.outputs[0]
    if dtype_of(output).itemsize < dtype_of(value).itemsize:
        node.replace_input_with(0, graph.replaced(value, empty=0))
        state = state.replace(zeroed=True)
    graph.set_state(output, state)


add_samples("Relu", Sample("after a convolution", "h = Conv (x, w) y = Relu (h)", {"w": (3, 4, 1, 1)}))
add_samples("Cast", Sample("to half precision and back", "h = Cast <to = 10> (x) r = Relu (h) y = Cast <to = 1> (r)"))
add_samples("HardSwish", Sample("alone", "y = HardSwish (x)"))
add_samples("LeakyRelu", Sample("slope .1", "y = LeakyRelu <alpha = 0.1> (x)"))
add_samples(
    "Sigmoid",
    Sample("before a convolution", "h = Sigmoid (x) y = Conv <pads = [1, 1, 1, 1]> (h, w)", {"w": (3, 4, 3, 3)}),
    Sample("SiLU", "s = Sigmoid (x) h = Mul (x, s) y = Conv <pads = [1, 1, 1, 1]> (h, w)", {"w": (3, 4, 3, 3)}),
)
add_samples("HardSigmoid", Sample("pooled", "h = HardSigmoid (x) y = GlobalAveragePool (h)"))
add_samples("Clip", Sample("without bounds", "y = Clip (x)"))
add_samples(
    "BatchNormalization",
    Sample(
        "before a convolution",
        "s = Abs (v) h = BatchNormalization (x, g, b, a, s) y = Conv <pads = [1, 1, 1, 1]> (h, w)",
        {"g": (4,), "b": (4,), "a": (4,), "v": (4,), "w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "Sqrt",
    Sample(
        "of what may be negative under the mask",
        "a = Abs (x) h = Sub (a, c) p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h) r = Relu (p) "
        "s = Sqrt (r) y = Conv <pads = [1, 1, 1, 1]> (s, w)",
        {"c": (4, 1, 1), "w": (3, 4, 3, 3)},
    ),
)
add_samples("Exp", Sample("pooled", "e = Exp (x) y = GlobalAveragePool (e)"))
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
