"""Operators on one map that work on each place of the image by itself: activations, batch normalisation, casts.

* The mask stays: ``m' = m``. Where f(0) ≠ 0 the output under the mask is no longer 0, and is set to 0 again by the
  next operator that looks beyond its own pixel.
* Functions that are not defined everywhere see a 1 under the mask, a cast to a narrower type sees a 0.

Gradients: ``dx = dy · f'(x)``, written with y = f(x) where that is shorter. At a kink it is what torch has there.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646; the operators' definitions in the ONNX
specification.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import LARGEST_SLOPE, dtype_of, input_at, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import (
    GradientGraph,
    Gradients,
    first_gradient,
    gradient_rule,
    passes_nothing,
    refuse_parameters,
)
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples
from masktool.ops.slopes import SLOPES
from masktool.ops.windows import places_in_channels_zeroed

ZERO_PRESERVING = (
    "Abs", "Asinh", "Atan", "Celu", "Ceil", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu",
    "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign", "Sin", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
OTHER_ACTIVATIONS = ("Clip", "Cos", "HardSigmoid", "Sigmoid", "Softplus")
STEEP = LARGEST_SLOPE / 2
"""A HardSigmoid of such a slope is a step, whose own slope is 0 wherever it has one."""


@mask_rule(*ZERO_PRESERVING)
def mask_zero_preserving(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask, and the zeros under it, since f(0) = 0."""
    graph.set_state(node.outputs[0], graph.state(input_at(node, 0)))


@mask_rule(*OTHER_ACTIVATIONS, "BatchNormalization", "IsInf", "IsNaN", "Not")
def mask_activation(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask; f(0) may differ from 0."""
    state = state_of_input(graph, node)
    if node.op_type == "BatchNormalization" and 1 in state.axes:
        state = graph.known_state(places_in_channels_zeroed(graph, node))
    if node.op_type == "BatchNormalization" and {state.batch, *state.axes} & {1}:
        raise RuleError("it normalises an axis of the image, not the channels")
    refuse_training(node)
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


def refuse_training(node: ir.Node) -> None:
    """Raises RuleError where batch normalisation takes mean and variance of its input, missing places too."""
    if node.attributes.get_int("training_mode", 0):
        raise RuleError("it takes mean and variance of the images at hand (training mode)")


@mask_rule("Acos", "Acosh", "Asin", "Atanh", "Cosh", "Exp", "Log", "Reciprocal", "Sinh", "Sqrt", "Tan")
def mask_guarded(graph: MaskedGraph, node: ir.Node) -> None:
    """Computes f(1) under the mask (Atanh: f(0)): of an arbitrary number, f may be infinite or no number."""
    state = state_of_input(graph, node)
    node.replace_input_with(0, graph.replaced(input_at(node, 0), empty=0 if node.op_type == "Atanh" else 1))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("Cast", "CastLike")
def mask_cast(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask; an arbitrary number under it may not fit into a narrower type, and is set to 0 before."""
    state, value, output = state_of_input(graph, node), input_at(node, 0), node.outputs[0]
    if dtype_of(output).itemsize < dtype_of(value).itemsize:
        node.replace_input_with(0, graph.replaced(value, empty=0))
        state = state.replace(zeroed=True)
    graph.set_state(output, state)


gradient_rule("Ceil", "Floor", "IsInf", "IsNaN", "Not", "Round", "Sign")(passes_nothing)


@gradient_rule("Identity", "Neg")
def vjp_sign(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Passes the gradient on, with the operator's sign."""
    gradient = first_gradient(gradients)
    return [graph.emit("Neg", gradient) if node.op_type == "Neg" else gradient]


@gradient_rule("Cast", "CastLike")
def vjp_cast(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Casts the gradient to the input's type."""
    return [graph.as_type(first_gradient(gradients), dtype_of(input_at(node, 0)))]


@gradient_rule("Relu")
def vjp_relu(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Passes the gradient where x is positive.

    A step, a HardSigmoid, is one of the few operators that ONNX Runtime leaves in the blocked layout of its
    convolutions; Greater and Where are not.
    """
    gradient, output = first_gradient(gradients), node.outputs[0]
    if dtype_of(output) not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return [graph.masked(gradient, graph.positive(output))]
    return [graph.emit("Mul", gradient, graph.step(output))]


@gradient_rule("BatchNormalization")
def vjp_batch_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Scales each channel: scale / √(variance + ε), from the parameters that the file holds already."""
    refuse_parameters(graph, node)
    refuse_training(node)
    scale, variance = input_at(node, 1), input_at(node, 4)
    epsilon = graph.number(node.attributes.get_float("epsilon", 1e-5), variance)
    deviation = graph.emit("Sqrt", graph.emit("Add", variance, epsilon))
    shape = graph.ints(1, -1, *[1] * (rank_of(input_at(node, 0)) - 2))
    factor = graph.emit("Reshape", graph.emit("Div", scale, deviation), shape)
    return [graph.scaled_by_channel(first_gradient(gradients), factor)]


@gradient_rule("Clip")
def vjp_clip(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Passes the gradient where x lies within the bounds, these included."""
    gradient, value = first_gradient(gradients), input_at(node, 0)
    refuse_parameters(graph, node)
    bounds = [*node.inputs[1:], None, None]
    if bounds[0] is not None:
        gradient = graph.zero_where(gradient, graph.emit("Less", value, bounds[0]))
    if bounds[1] is not None:
        gradient = graph.zero_where(gradient, graph.emit("Greater", value, bounds[1]))
    return [gradient]


@gradient_rule("LeakyRelu")
def vjp_leaky_relu(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Scales the gradient by the slope where x is not positive."""
    gradient, value = first_gradient(gradients), input_at(node, 0)
    alpha = graph.number(node.attributes.get_float("alpha", 0.01), value)
    return [graph.emit("Where", graph.positive(value), gradient, graph.emit("Mul", gradient, alpha))]


@gradient_rule("ThresholdedRelu", "Shrink", "HardSigmoid")
def vjp_gate(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Passes the gradient where x lies in the operator's open range, times its slope."""
    gradient, value, own = first_gradient(gradients), input_at(node, 0), node.attributes
    if node.op_type == "ThresholdedRelu":
        threshold = graph.number(own.get_float("alpha", 1.0), value)
        return [graph.masked(gradient, graph.emit("Greater", value, threshold))]
    if node.op_type == "Shrink":
        threshold = graph.number(own.get_float("lambd", 0.5), value)
        return [graph.masked(gradient, graph.emit("Greater", graph.emit("Abs", value), threshold))]
    if own.get_float("alpha", 0.2) >= STEEP:
        return []
    output = node.outputs[0]
    inside = graph.masked(gradient, graph.positive(output))
    inside = graph.masked(inside, graph.emit("Less", output, graph.number(1, output)))
    return [graph.emit("Mul", inside, graph.number(own.get_float("alpha", 0.2), value))]


@gradient_rule(*SLOPES)
def vjp_activation(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Multiplies by the slope."""
    return [graph.emit("Mul", first_gradient(gradients), SLOPES[node.op_type](graph, node))]


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
INVERSES = "t = Tanh (x) e = Constant <value_float = 0.9> () u = Mul (t, e) "
for op_type in ("Acos", "Asin", "Atanh"):
    add_samples(op_type, Sample("within its domain", INVERSES + f"h = {op_type} (u) y = GlobalAveragePool (h)"))
for op_type in ("Asinh", "Atan", "Cosh", "Sinh", "Tan"):
    add_samples(op_type, Sample("before a mean", f"t = Tanh (x) h = {op_type} (t) y = GlobalAveragePool (h)"))
add_samples(
    "Acosh",
    Sample(
        "within its domain",
        "a = Abs (x) o = Constant <value_float = 1.1> () u = Add (a, o) h = Acosh (u) y = GlobalAveragePool (h)",
    ),
)
add_samples(
    "IsNaN",
    Sample(
        "what is no number replaced",
        "n = IsNaN (x) i = IsInf (x) b = Or (n, i) r = Relu (x) h = Where (b, r, x) "
        "y = Conv <pads = [1, 1, 1, 1]> (h, w)",
        {"w": (3, 4, 3, 3)},
    ),
)
