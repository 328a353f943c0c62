"""Operators that work on each place of the image by itself.

* One map (activations, batch normalisation, casts): ``m' = m``. Where f(0) ≠ 0 the output under the mask is no longer
  0, and is set to 0 again by the next operator that looks beyond its own pixel.
* Functions that are not defined everywhere see a 1 under the mask.
* Two and more maps (residual addition, gates that are maps): the smaller mask wins, ``m' = min(m₁, m₂, …)``. A
  weight, or a gate of shape (N, C, 1, 1), leaves the mask as it is.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (there the product, which for binary masks
is the minimum).
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.graph import Masked, MaskedGraph, input_at, rank_of
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule

ZERO_PRESERVING = (
    "Abs", "Celu", "Elu", "Erf", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sign",
    "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
OTHER_ACTIVATIONS = ("Clip", "HardSigmoid", "Sigmoid", "Softplus")


@mask_rule(*ZERO_PRESERVING)
def mask_zero_preserving(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask, and the zeros under it, since f(0) = 0."""
    graph.set_state(node.outputs[0], graph.state(input_at(node, 0)))


@mask_rule(*OTHER_ACTIVATIONS, "BatchNormalization")
def mask_activation(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask; f(0) may differ from 0."""
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    if node.op_type == "BatchNormalization" and 1 in state.axes:
        raise RuleError("it normalises an axis of the image, not the channels")
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("Exp", "Log", "Pow", "Reciprocal", "Sqrt")
def mask_guarded(graph: MaskedGraph, node: ir.Node) -> None:
    """Computes f(1) under the mask: of an arbitrary number, f may be infinite or no number."""
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    node.replace_input_with(0, graph.replaced(input_at(node, 0), empty=1))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Sub", "Sum")
def mask_join(graph: MaskedGraph, node: ir.Node) -> None:
    """Joins maps: the smaller mask wins."""
    output = node.outputs[0]
    states = {id(state.mask): state for value in node.inputs if (state := state_in_output(graph, value, output))}
    first, *others = states.values()
    mask = first.mask
    for state in others:
        if state.axes != first.axes:
            raise RuleError(f"it joins maps of different layouts: axes {first.axes} and {state.axes}")
        mask = graph.emit("Min", mask, state.mask)
    if node.op_type == "Div":  # what stands under the mask is arbitrary, and must not become a division by 0
        node.replace_input_with(1, graph.replaced(input_at(node, 1), empty=1))
    graph.set_state(output, Masked(mask, first.axes))


def state_in_output(graph: MaskedGraph, value: ir.Value | None, output: ir.Value) -> Masked | None:
    """Returns a map's state with its axes counted as the broadcast output counts them."""
    state = graph.state(value)
    if state is None or value is None:
        return None
    shift = rank_of(output) - rank_of(value)
    if shift:
        raise RuleError(f"it broadcasts the map {value.name!r} to more axes")
    return state


add_samples("Relu", Sample("after a convolution", "h = Conv (x, w) y = Relu (h)", {"w": (3, 4, 1, 1)}))
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
