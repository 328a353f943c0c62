"""The slopes of smooth activations, f'(x), in terms of x or of y = f(x), whichever is shorter.

Source: the operators' definitions in the ONNX specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at
from masktool.ops.gradients import GradientGraph

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""The defaults of Selu in the ONNX specification."""
GELU_CUBIC = 0.044715
"""Coefficient of the tanh approximation of Gelu in the ONNX specification."""


def slope_of_abs(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``sign(x)``."""
    return graph.sign(input_at(node, 0))


def slope_of_elu(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``γ`` for x > 0, else ``y + γ · α``, as y = γ · α · (eˣ − 1)."""
    y, own = node.outputs[0], node.attributes
    selu = node.op_type == "Selu"
    alpha = own.get_float("alpha", SELU_ALPHA if selu else 1.0)
    gamma = own.get_float("gamma", SELU_GAMMA) if selu else 1.0
    below = graph.emit("Add", y, graph.number(gamma * alpha, y))
    return graph.emit("Where", graph.positive(input_at(node, 0)), graph.number(gamma, y), below)


def slope_of_celu(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``min(y, 0) / α + 1``, as y = α · (exp(x / α) − 1) below 0."""
    y = node.outputs[0]
    below = graph.bounded(y, high=0)
    below = graph.emit("Div", below, graph.number(node.attributes.get_float("alpha", 1.0), y))
    return graph.emit("Add", below, graph.number(1, y))


def bell(graph: GradientGraph, value: ir.Value, width: float, height: float) -> ir.Value:
    """Returns ``height · exp(−width · x²)``."""
    square = graph.emit("Mul", graph.emit("Mul", value, value), graph.number(-width, value))
    return graph.emit("Mul", graph.emit("Exp", square), graph.number(height, value))


def slope_of_erf(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``2 / √π · exp(−x²)``."""
    return bell(graph, input_at(node, 0), 1.0, 2 / math.sqrt(math.pi))


def slope_of_gelu(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``Φ(x) + x · φ(x)``, with Φ and φ of the standard normal distribution; or the same of its tanh approximation."""
    x = input_at(node, 0)
    if node.attributes.get_string("approximate", "none") == "tanh":
        return slope_of_tanh_gelu(graph, x)
    erf = graph.emit("Erf", graph.emit("Mul", x, graph.number(math.sqrt(0.5), x)))
    share = graph.emit("Mul", graph.emit("Add", erf, graph.number(1, x)), graph.number(0.5, x))
    density = bell(graph, x, 0.5, 1 / math.sqrt(2 * math.pi))
    return graph.emit("Add", share, graph.emit("Mul", x, density))


def slope_of_tanh_gelu(graph: GradientGraph, x: ir.Value) -> ir.Value:
    """``½ (1 + t) + ½ x (1 − t²) u'``, with t = tanh(u) and u = √(2 / π) (x + a · x³)."""
    scale, one, half = math.sqrt(2 / math.pi), graph.number(1, x), graph.number(0.5, x)
    square = graph.emit("Mul", x, x)

    def polynomial(cubic: float) -> ir.Value:
        inner = graph.emit("Add", graph.emit("Mul", square, graph.number(cubic, x)), one)
        return graph.emit("Mul", inner, graph.number(scale, x))

    t = graph.emit("Tanh", graph.emit("Mul", x, polynomial(GELU_CUBIC)))
    bend = graph.emit("Mul", graph.emit("Sub", one, graph.emit("Mul", t, t)), polynomial(3 * GELU_CUBIC))
    both = graph.emit("Add", graph.emit("Add", t, one), graph.emit("Mul", x, bend))
    return graph.emit("Mul", both, half)


def slope_of_hard_swish(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``x / 3 + ½`` for |x| < 3, 0 below, 1 above."""
    x = input_at(node, 0)
    ramp = graph.emit("Mul", x, graph.number(1 / 3, x))
    ramp = graph.emit("Add", ramp, graph.number(0.5, x))
    inside = graph.emit("Less", graph.emit("Abs", x), graph.number(3, x))
    above = graph.as_type(graph.positive(x), dtype_of(x))
    return graph.emit("Where", inside, ramp, above)


def slope_of_mish(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``t + x · (1 − t²) · σ(x)``, with t = tanh(softplus(x))."""
    x = input_at(node, 0)
    t = graph.emit("Tanh", graph.emit("Softplus", x))
    rise = graph.emit("Mul", graph.emit("Mul", x, complement_of_square(graph, t)), graph.emit("Sigmoid", x))
    return graph.emit("Add", t, rise)


def slope_of_sin(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``cos(x)``."""
    return graph.emit("Cos", input_at(node, 0))


def slope_of_cos(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``−sin(x)``."""
    return graph.emit("Neg", graph.emit("Sin", input_at(node, 0)))


def slope_of_softsign(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``(1 − |y|)²``."""
    y = node.outputs[0]
    rest = graph.emit("Sub", graph.number(1, y), graph.emit("Abs", y))
    return graph.emit("Mul", rest, rest)


def complement_of_square(graph: GradientGraph, value: ir.Value) -> ir.Value:
    """Returns ``1 − y²``."""
    return graph.emit("Sub", graph.number(1, value), graph.emit("Mul", value, value))


def slope_of_tanh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 − y²``."""
    return complement_of_square(graph, node.outputs[0])


def slope_of_sigmoid(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``y · (1 − y)``."""
    y = node.outputs[0]
    return graph.emit("Mul", y, graph.emit("Sub", graph.number(1, y), y))


def slope_of_softplus(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``σ(x)``."""
    return graph.emit("Sigmoid", input_at(node, 0))


def slope_of_exp(graph: GradientGraph, node: ir.Node) -> ir.Value:  # noqa: ARG001
    """``y``."""
    return node.outputs[0]


def slope_of_log(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / x``."""
    return graph.emit("Reciprocal", input_at(node, 0))


def slope_of_reciprocal(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``−y²``."""
    y = node.outputs[0]
    return graph.emit("Neg", graph.emit("Mul", y, y))


def slope_of_sqrt(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``½ / y``; 0 where y is 0, since ∞ · 0 is NaN for whatever made that 0, such as a ReLU."""
    y = node.outputs[0]
    return graph.masked(graph.emit("Div", graph.number(0.5, y), y), graph.positive(y))


def root_of_one(graph: GradientGraph, node: ir.Node, square_sign: int, one_sign: int) -> ir.Value:
    """Returns ``√(± x² ± 1)`` of a node's input x, with the given signs."""
    x = input_at(node, 0)
    square = graph.emit("Mul", graph.emit("Mul", x, x), graph.number(square_sign, x))
    return graph.emit("Sqrt", graph.emit("Add", square, graph.number(one_sign, x)))


def slope_of_asin(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / √(1 − x²)``; the negative of it for acos."""
    slope = graph.emit("Reciprocal", root_of_one(graph, node, -1, 1))
    return graph.emit("Neg", slope) if node.op_type == "Acos" else slope


def slope_of_asinh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / √(x² + 1)``."""
    return graph.emit("Reciprocal", root_of_one(graph, node, 1, 1))


def slope_of_acosh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / √(x² − 1)``."""
    return graph.emit("Reciprocal", root_of_one(graph, node, 1, -1))


def slope_of_atan(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / (1 + x²)``."""
    x = input_at(node, 0)
    return graph.emit("Reciprocal", graph.emit("Add", graph.emit("Mul", x, x), graph.number(1, x)))


def slope_of_atanh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 / (1 − x²)``."""
    return graph.emit("Reciprocal", complement_of_square(graph, input_at(node, 0)))


def slope_of_sinh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``cosh(x)``."""
    return graph.emit("Cosh", input_at(node, 0))


def slope_of_cosh(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``sinh(x)``."""
    return graph.emit("Sinh", input_at(node, 0))


def slope_of_tan(graph: GradientGraph, node: ir.Node) -> ir.Value:
    """``1 + y²``."""
    y = node.outputs[0]
    return graph.emit("Add", graph.emit("Mul", y, y), graph.number(1, y))


SLOPES: dict[str, Callable[[GradientGraph, ir.Node], ir.Value]] = {
    "Abs": slope_of_abs,
    "Acos": slope_of_asin,
    "Acosh": slope_of_acosh,
    "Asin": slope_of_asin,
    "Asinh": slope_of_asinh,
    "Atan": slope_of_atan,
    "Atanh": slope_of_atanh,
    "Celu": slope_of_celu,
    "Cos": slope_of_cos,
    "Cosh": slope_of_cosh,
    "Elu": slope_of_elu,
    "Erf": slope_of_erf,
    "Exp": slope_of_exp,
    "Gelu": slope_of_gelu,
    "HardSwish": slope_of_hard_swish,
    "Log": slope_of_log,
    "Mish": slope_of_mish,
    "Reciprocal": slope_of_reciprocal,
    "Selu": slope_of_elu,
    "Sigmoid": slope_of_sigmoid,
    "Sin": slope_of_sin,
    "Sinh": slope_of_sinh,
    "Softplus": slope_of_softplus,
    "Softsign": slope_of_softsign,
    "Sqrt": slope_of_sqrt,
    "Tan": slope_of_tan,
    "Tanh": slope_of_tanh,
}
