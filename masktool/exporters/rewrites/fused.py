"""Takes operators that ONNX Runtime makes when it optimises a graph apart into the standard ones they came from.

ONNX Runtime puts them together again when it loads the exported file.

Source: ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import (
    Replacement,
    Rewrite,
    attributes_of,
    rewrite_nodes,
)

CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
TANH_GELU_CUBIC = 0.044715
"""Coefficient of the tanh form of GELU (Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415)."""


def rewrite_fused(graph: ir.Graph) -> bool:
    """Takes fused operators apart, in place; returns whether there was such an operator.

    A fused operator without a rewrite stays, and is refused by name later.
    """
    return rewrite_nodes(graph, REWRITES)


def scalar(new: Replacement, value: float, like: ir.Value | None) -> ir.Value:
    """Adds a scalar of another value's element type; the files that ONNX Runtime writes state every type."""
    dtype = ir.DataType.FLOAT if like is None or like.dtype is None else like.dtype
    return new.constant(np.array(value, dtype.numpy()))


def activate(new: Replacement, value: ir.Value, name: str, parameters: Sequence[float]) -> ir.Value | None:
    """Emits a fused activation and returns its result; None where the activation is not known.

    Args:
        new: the replacement under way.
        value: the value that is activated.
        name: the name of the activation; empty for none.
        parameters: (alpha, beta), or the bounds of Clip; empty for the defaults.
    """
    if name in ("", "Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "HardSwish"):
        return new.emit(name, value) if name else value
    if name in ("LeakyRelu", "Elu", "ThresholdedRelu", "HardSigmoid"):
        return new.emit(name, value, **dict(zip(("alpha", "beta"), map(float, parameters), strict=False)))
    if name == "Clip" and len(parameters) == 2:
        return new.emit("Clip", value, *(scalar(new, bound, new.node.outputs[0]) for bound in parameters))
    return None


def rewrite_fused_conv(channels_last: bool) -> Rewrite:
    """Returns the rewrite of FusedConv (x, weight, bias, residual) with an activation."""

    def rewrite(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
        x, weight = node.inputs[:2]
        bias, residual = input_of(node, 2), input_of(node, 3)
        x = new.to_nchw(x) if channels_last else x
        inputs = (x, weight) if bias is None else (x, weight, bias)
        y = new.emit("Conv", *inputs, **attributes_of(node, *CONV_ATTRIBUTES))
        y = new.to_nhwc(y) if channels_last else y
        y = y if residual is None else new.emit("Add", y, residual)
        name = node.attributes.get_string("activation", "")
        activated = activate(new, y, name or "", node.attributes.get_floats("activation_params") or ())
        return None if activated is None else [activated]

    return rewrite


def rewrite_fused_gemm(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """FusedGemm: Gemm and an activation."""
    y = new.emit("Gemm", *node.inputs, **attributes_of(node, "alpha", "beta", "transA", "transB"))
    parameters = [
        value for key in ("alpha", "beta") if (value := node.attributes.get_float(f"activation_{key}")) is not None
    ]
    activated = activate(new, y, node.attributes.get_string("activation", "") or "", parameters)
    return None if activated is None else [activated]


def rewrite_fused_matmul(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """FusedMatMul: alpha · op(a) · op(b); a transposition needs a known rank."""
    if node.attributes.get_int("transBatchA", 0) or node.attributes.get_int("transBatchB", 0):
        return None
    factors: list[ir.Value | None] = []
    for value, key in zip(node.inputs, ("transA", "transB"), strict=True):
        if value is not None and node.attributes.get_int(key, 0) == 1:
            if value.shape is None:
                return None
            rank = len(value.shape)
            value = new.emit("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])
        factors.append(value)
    y = new.emit("MatMul", *factors)
    alpha = node.attributes.get_float("alpha", 1.0)
    return [y if alpha == 1 else new.emit("Mul", y, scalar(new, float(alpha), node.outputs[0]))]


def emit_gelu(new: Replacement, x: ir.Value) -> ir.Value:
    """Emits x · (1 + erf(x / √2)) · ½, in the form that ONNX Runtime recognises."""
    y = new.node.outputs[0]
    erf = new.emit("Erf", new.emit("Div", x, scalar(new, math.sqrt(2), y)))
    return new.emit("Mul", new.emit("Mul", x, new.emit("Add", erf, scalar(new, 1, y))), scalar(new, 0.5, y))


def emit_tanh_gelu(new: Replacement, x: ir.Value) -> ir.Value:
    """Emits ½ · x · (1 + tanh(√(2/π) · (x + c · x³)))."""
    y = new.node.outputs[0]
    cubic = new.emit("Mul", new.emit("Mul", new.emit("Mul", x, x), x), scalar(new, TANH_GELU_CUBIC, y))
    inner = new.emit("Mul", new.emit("Add", x, cubic), scalar(new, math.sqrt(2 / math.pi), y))
    factor = new.emit("Add", new.emit("Tanh", inner), scalar(new, 1, y))
    return new.emit("Mul", new.emit("Mul", x, scalar(new, 0.5, y)), factor)


def rewrite_gelu(emit: Callable[[Replacement, ir.Value], ir.Value]) -> Rewrite:
    """Returns the rewrite of a GELU (x, optional bias)."""

    def rewrite(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
        x, bias = node.inputs[0], input_of(node, 1)
        assert x is not None
        return [emit(new, x if bias is None else new.emit("Add", x, bias))]

    return rewrite


def rewrite_quick_gelu(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
    """QuickGelu: x · sigmoid(alpha · x)."""
    x = node.inputs[0]
    alpha = float(node.attributes.get_float("alpha", 1.702))
    inner = x if alpha == 1 else new.emit("Mul", x, scalar(new, alpha, node.outputs[0]))
    return [new.emit("Mul", x, new.emit("Sigmoid", inner))]


def rewrite_skip_norm(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """SkipLayerNormalization (x, skip, gamma, beta, bias) → y, and the sum before the norm as fourth output."""
    x, skip, gamma = node.inputs[:3]
    beta, bias = input_of(node, 3), input_of(node, 4)
    total = new.emit("Add", x, skip)
    total = total if bias is None else new.emit("Add", total, bias)
    y = new.emit("LayerNormalization", total, gamma, beta, **attributes_of(node, "epsilon"), axis=-1)
    return [y, None, None, total]


CONTRIB = "com.microsoft"
REWRITES: dict[tuple[str, str], Rewrite] = {
    (CONTRIB, "FusedConv"): rewrite_fused_conv(channels_last=False),
    (CONTRIB, "NhwcConv"): rewrite_fused_conv(channels_last=True),
    (CONTRIB, "NhwcFusedConv"): rewrite_fused_conv(channels_last=True),
    (CONTRIB, "FusedGemm"): rewrite_fused_gemm,
    (CONTRIB, "FusedMatMul"): rewrite_fused_matmul,
    (CONTRIB, "TransposeMatMul"): rewrite_fused_matmul,
    (CONTRIB, "Gelu"): rewrite_gelu(emit_gelu),
    (CONTRIB, "BiasGelu"): rewrite_gelu(emit_gelu),
    (CONTRIB, "FastGelu"): rewrite_gelu(emit_tanh_gelu),
    (CONTRIB, "QuickGelu"): rewrite_quick_gelu,
    (CONTRIB, "SkipLayerNormalization"): rewrite_skip_norm,
}
