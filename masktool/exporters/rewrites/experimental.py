"""Rewrites experimental operators, which ONNX removed and ONNX Runtime still runs, in operators that stayed.

They are rewritten in the opset of the file, 9 at most, before it is lifted: ONNX's version converter knows none of
them.

Source: ONNX operator specification up to opset 4, and ONNX Runtime, which registers them for old files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.errors import MasktoolError
from masktool.exporters.rewrites.replacement import Replacement, Rewrite, rewrite_nodes

BROADCASTS_SINCE = 7
"""Opset from which on Mul and Add need no attributes to broadcast."""
TO_THE_END = 2**31 - 1
REMOVED = frozenset(
    {"ATen", "ConstantFill", "DynamicSlice", "GRUUnit", "GivenTensorFill", "Scale", "Affine", "Crop", "ImageScaler"}
)
"""Names of the experimental operators; those that :func:`rewrite_experimental` leaves cannot be lifted."""


def rewrite_experimental(graph: ir.Graph, opset: int) -> None:
    """Rewrites experimental operators in operators that stayed, in place.

    Raises:
        MasktoolError: an experimental operator is left that has no rewrite.
    """
    if opset >= BROADCASTS_SINCE:
        rewrite_nodes(graph, REWRITES)
    left = [node for node in graph if node.domain == "" and node.op_type in REMOVED]
    if left:
        raise MasktoolError(
            "experimental operators that ONNX removed",
            got=", ".join(dict.fromkeys(f"{node.op_type} (node {node.name!r})" for node in left)),
            fix="convert the network again with a converter of today, in opset 18 or later",
        )


def typed_constant(new: Replacement, value: float | Sequence[float], shape: Sequence[int] = ()) -> ir.Value:
    """Adds a constant of the element type of the replaced node's input."""
    source = new.node.inputs[0]
    dtype = ir.DataType.FLOAT if source is None or source.dtype is None else source.dtype
    return new.constant(np.asarray(value, dtype.numpy()).reshape(shape))


def rewrite_image_scaler(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """ImageScaler: x · scale + bias, the bias one number for each channel of (N, C, H, W)."""
    bias = node.attributes.get_floats("bias")
    if not bias:
        return None
    scaled = new.emit("Mul", node.inputs[0], typed_constant(new, node.attributes.get_float("scale", 1.0)))
    return [new.emit("Add", scaled, typed_constant(new, bias, (1, len(bias), 1, 1)))]


def rewrite_affine(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """Affine: alpha · x + beta; Scale: scale · x."""
    factor = node.attributes.get_float("scale" if node.op_type == "Scale" else "alpha", 1.0)
    scaled = new.emit("Mul", node.inputs[0], typed_constant(new, factor))
    beta = node.attributes.get_float("beta", 0.0)
    return [new.emit("Add", scaled, typed_constant(new, beta)) if beta else scaled]


def rewrite_scaled(op_type: str) -> Rewrite:
    """Returns the rewrite of alpha · f(beta · x), f an operator; alpha and beta stand in the file."""

    def rewrite(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
        alpha, beta = node.attributes.get_float("alpha"), node.attributes.get_float("beta")
        if alpha is None or beta is None:
            return None
        inner = new.emit(op_type, new.emit("Mul", node.inputs[0], typed_constant(new, beta)))
        return [new.emit("Mul", inner, typed_constant(new, alpha))]

    return rewrite


def rewrite_crop(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """Crop: the borders (left, top, right, bottom) are cut off, or (height, width) is left behind the first two."""
    border, scale = node.attributes.get_ints("border") or (), node.attributes.get_ints("scale")
    if len(border) != 4:
        return None
    left, top, right, bottom = border
    ends = [top + scale[0], left + scale[1]] if scale else [-bottom or TO_THE_END, -right or TO_THE_END]
    return [new.emit("Slice", node.inputs[0], starts=[top, left], ends=ends, axes=[2, 3])]


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "ImageScaler"): rewrite_image_scaler,
    ("", "Affine"): rewrite_affine,
    ("", "Scale"): rewrite_affine,
    ("", "ParametricSoftplus"): rewrite_scaled("Softplus"),
    ("", "ScaledTanh"): rewrite_scaled("Tanh"),
    ("", "Crop"): rewrite_crop,
}
