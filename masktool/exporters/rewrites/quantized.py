"""Rewrites quantised operators as DequantizeLinear → float operator → QuantizeLinear: one mask rule serves both.

ONNX Runtime fuses this form back into the same integer kernels, so that nothing is lost: neither speed nor the last
bit.

1. Each ``QLinear…`` operator, of the standard domain or ONNX Runtime's own, is written that way. Where its scales are
   no constants it stays, and is refused by name later.
2. An operator that only moves integers, or only compares them (MaxPool), is put between DequantizeLinear and
   QuantizeLinear as well. So no integer ever meets a mask.
3. The int8 numbers of a ``QLinear…`` operator become uint8 numbers, 128 higher. ONNX Runtime does so itself, but only
   where one operator reads them: behind a residual join it would compute in float, a step of the quantisation apart
   from its own integer kernel.
4. The number that a Pad pads with is dequantised here.

Source: ONNX operator specification, QLinearConv, QLinearMatMul; ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import (
    Replacement,
    Rewrite,
    attributes_of,
    is_used,
    read_constant,
    rewrite_nodes,
)

WINDOW_ATTRIBUTES = (
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "group",
    "kernel_shape",
    "pads",
    "strides",
)
MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that give the same result before and after dequantisation."""
STANDARD_TYPES = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32})
"""Element types that QuantizeLinear and DequantizeLinear of opset 18 know."""

PAD_VALUE = 2
"""Index of the input of Pad that holds the number to pad with."""
SIGN = 128
"""Difference between an int8 and the uint8 that stands for the same number."""

Scale = tuple[ir.Value | None, ir.Value | None]
"""Scale and zero point."""


def rewrite_quantized(graph: ir.Graph) -> bool:
    """Rewrites quantised operators as float ones, in place; returns whether there was such an operator."""
    settle_pad_values(graph)
    rewritten = rewrite_nodes(graph, REWRITES)
    moved = surround_moves(graph)
    if rewritten:
        raise_to_unsigned(graph)
    return rewritten or moved


def settle_pad_values(graph: ir.Graph) -> None:
    """Gives every Pad its pad value as a constant where a DequantizeLinear of constants gives it, in place."""
    for node in graph:
        value = input_of(node, PAD_VALUE) if node.op_type == "Pad" else None
        producer = None if value is None else value.producer()
        if producer is None or producer.op_type != "DequantizeLinear":
            continue
        integer, scale, zero = (read_constant(input_of(producer, index)) for index in range(3))
        if integer is not None and scale is not None and integer.size == scale.size == 1:
            steps = integer.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
            number = (steps.reshape(()) * scale.reshape(())).astype(scale.dtype)
            node.replace_input_with(PAD_VALUE, Replacement(graph, node).constant(number))


def raise_to_unsigned(graph: ir.Graph) -> None:
    """Makes int8 values uint8 where they only stand between QuantizeLinear and DequantizeLinear, in place."""
    for node in tuple(graph):
        zero = read_constant(input_of(node, 2)) if node.op_type == "QuantizeLinear" else None
        if zero is None or zero.dtype != np.int8 or zero.size != 1 or node.outputs[0].is_graph_output():
            continue
        scale = content_of((input_of(node, 1), input_of(node, 2)))
        readers = [(user, index) for user, index in node.outputs[0].uses()]
        if scale is not None and all(reads_at(user, index, scale) for user, index in readers):
            raised = Replacement(graph, node).constant((zero.reshape(()).astype(np.int16) + SIGN).astype(np.uint8))
            for each in (node, *(user for user, _ in readers)):
                each.replace_input_with(2, raised)
            node.outputs[0].type = raised.type


def reads_at(node: ir.Node, index: int, scale: tuple[float, int]) -> bool:
    """Whether a node dequantises its input number ``index``, with a given scale and zero point."""
    return (
        node.op_type == "DequantizeLinear"
        and index == 0
        and content_of((input_of(node, 1), input_of(node, 2))) == scale
    )


def dequantize(new: Replacement, value: ir.Value | None, scale: Scale, axis: int | None = None) -> ir.Value:
    """Emits DequantizeLinear; ``axis`` is the axis of a scale with more than one entry."""
    scales = read_constant(scale[0])
    per_axis = scales is not None and scales.size > 1
    return new.emit("DequantizeLinear", value, *as_scalars(new, scale), axis=axis if per_axis else None)


def quantize(new: Replacement, value: ir.Value, scale: Scale) -> ir.Value:
    """Emits QuantizeLinear with one scale for the whole tensor."""
    return new.emit("QuantizeLinear", value, *as_scalars(new, scale))


def as_scalars(new: Replacement, scale: Scale) -> list[ir.Value | None]:
    """Returns scale and zero point, those of shape (1,) as scalars: ONNX Runtime fuses no others."""
    arrays = [read_constant(value) for value in scale]
    return [
        new.constant(array.reshape(())) if array is not None and array.shape == (1,) else value
        for value, array in zip(scale, arrays, strict=True)
    ]


def rewrite_qlinear_conv(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """QLinearConv (x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias), also channels last."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    bias = input_of(node, 8)
    bias_scale = product_of_scales(x_scale, w_scale)
    if bias is not None and bias_scale is None:
        return None
    channels_last = node.attributes.get_int("channels_last", 0) == 1
    x = new.to_nchw(x) if channels_last else x
    inputs = [dequantize(new, x, (x_scale, x_zero)), dequantize(new, w, (w_scale, w_zero), axis=0)]
    if bias is not None and bias_scale is not None:
        inputs.append(dequantize(new, bias, (new.constant(bias_scale), None), axis=0))
    y = quantize(new, new.emit("Conv", *inputs, **attributes_of(node, *WINDOW_ATTRIBUTES)), (y_scale, y_zero))
    return [new.to_nhwc(y) if channels_last else y]


def product_of_scales(x_scale: ir.Value | None, w_scale: ir.Value | None, factor: float = 1) -> np.ndarray | None:
    """Returns the scale of a bias: the product of the input's and the weight's; None where they are no constants."""
    x, w = read_constant(x_scale), read_constant(w_scale)
    if x is None or w is None or x.size != 1:
        return None
    product = np.float32(factor) * x.reshape(()) * w
    return product.reshape(()) if product.size == 1 else product


def rewrite_qlinear_matmul(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """QLinearMatMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
    scales = read_constant(a_scale)
    if scales is None or scales.size != 1:
        return None
    product = new.emit("MatMul", dequantize(new, a, (a_scale, a_zero)), dequantize(new, b, (b_scale, b_zero), axis=-1))
    return [quantize(new, product, (y_scale, y_zero))]


def rewrite_qgemm(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """QGemm (a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero); without a y_scale the result is float."""
    a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
    c, y_scale, y_zero = (input_of(node, index) for index in (6, 7, 8))
    alpha = node.attributes.get_float("alpha", 1.0)
    c_scale = product_of_scales(a_scale, b_scale, alpha)
    if c is not None and c_scale is None:
        return None
    columns = 0 if node.attributes.get_int("transB", 0) else 1
    inputs = [dequantize(new, a, (a_scale, a_zero)), dequantize(new, b, (b_scale, b_zero), axis=columns)]
    if c is not None and c_scale is not None:
        inputs.append(dequantize(new, c, (new.constant(c_scale), None), axis=-1))
    y = new.emit("Gemm", *inputs, **attributes_of(node, "alpha", "transA", "transB"))
    return [y if y_scale is None else quantize(new, y, (y_scale, y_zero))]


def rewrite_qlinear_binary(op_type: str) -> Rewrite:
    """Returns the rewrite of (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""

    def rewrite(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (input_of(node, index) for index in range(8))
        y = new.emit(op_type, dequantize(new, a, (a_scale, a_zero)), dequantize(new, b, (b_scale, b_zero)))
        return [quantize(new, y, (y_scale, y_zero))]

    return rewrite


def rewrite_qlinear_unary(op_type: str, *attributes: str) -> Rewrite:
    """Returns the rewrite of (x, x_scale, x_zero, y_scale, y_zero), also channels last."""

    def rewrite(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
        x, x_scale, x_zero, y_scale, y_zero = (input_of(node, index) for index in range(5))
        channels_last = node.attributes.get_int("channels_last", 0) == 1
        value = dequantize(new, new.to_nchw(x) if channels_last else x, (x_scale, x_zero))
        y = quantize(new, new.emit(op_type, value, **attributes_of(node, *attributes)), (y_scale, y_zero))
        return [new.to_nhwc(y) if channels_last else y]

    return rewrite


def rewrite_qlinear_softmax(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """QLinearSoftmax; before opset 13 a softmax flattens from its axis on, and stays unless that is the last."""
    if node.attributes.get_int("opset", 13) < 13 and node.attributes.get_int("axis", -1) != -1:
        return None
    return rewrite_qlinear_unary("Softmax", "axis")(new, node)


def rewrite_qlinear_concat(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
    """QLinearConcat (y_scale, y_zero, then x, x_scale, x_zero of each input)."""
    parts = node.inputs[2:]
    values = [dequantize(new, parts[i], (parts[i + 1], parts[i + 2])) for i in range(0, len(parts), 3)]
    joined = new.emit("Concat", *values, **attributes_of(node, "axis"))
    return [quantize(new, joined, (node.inputs[0], node.inputs[1]))]


def rewrite_nhwc_max_pool(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None]:
    """NhwcMaxPool: the maximum over windows of a channels-last map of integers."""
    pooled = new.emit("MaxPool", new.to_nchw(node.inputs[0]), **attributes_of(node, *WINDOW_ATTRIBUTES))
    return [new.to_nhwc(pooled)]


def rewrite_to_standard(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """QuantizeLinear and DequantizeLinear of ONNX Runtime's domain, for the element types that ONNX has as well."""
    integers = input_of(node, 2) or (node.inputs[0] if node.op_type == "DequantizeLinear" else None)
    if integers is None or integers.dtype not in STANDARD_TYPES:
        return None
    return [new.emit(node.op_type, *node.inputs, **attributes_of(node, "axis"))]


CONTRIB = "com.microsoft"
REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "QLinearConv"): rewrite_qlinear_conv,
    (CONTRIB, "QLinearConv"): rewrite_qlinear_conv,
    ("", "QLinearMatMul"): rewrite_qlinear_matmul,
    (CONTRIB, "QGemm"): rewrite_qgemm,
    (CONTRIB, "QLinearAdd"): rewrite_qlinear_binary("Add"),
    (CONTRIB, "QLinearMul"): rewrite_qlinear_binary("Mul"),
    (CONTRIB, "QLinearAveragePool"): rewrite_qlinear_unary("AveragePool", *WINDOW_ATTRIBUTES),
    (CONTRIB, "QLinearGlobalAveragePool"): rewrite_qlinear_unary("GlobalAveragePool"),
    (CONTRIB, "QLinearLeakyRelu"): rewrite_qlinear_unary("LeakyRelu", "alpha"),
    (CONTRIB, "QLinearSigmoid"): rewrite_qlinear_unary("Sigmoid"),
    (CONTRIB, "QLinearSoftmax"): rewrite_qlinear_softmax,
    (CONTRIB, "QLinearConcat"): rewrite_qlinear_concat,
    (CONTRIB, "NhwcMaxPool"): rewrite_nhwc_max_pool,
    (CONTRIB, "QuantizeLinear"): rewrite_to_standard,
    (CONTRIB, "DequantizeLinear"): rewrite_to_standard,
}


def surround_moves(graph: ir.Graph) -> bool:
    """Puts operators that only move integers between DequantizeLinear and QuantizeLinear; returns whether any was."""
    scales: dict[ir.Value, Scale] = {}
    found = False
    for node in tuple(graph):
        if node.op_type == "QuantizeLinear" and content_of((input_of(node, 1), input_of(node, 2))):
            scales[node.outputs[0]] = (input_of(node, 1), input_of(node, 2))
        elif node.op_type in MOVES and node.domain == "" and (scale := common_scale(node, scales)):
            new = Replacement(graph, node)
            for index in range(len(node.inputs) if node.op_type == "Concat" else 1):
                node.replace_input_with(index, dequantize(new, node.inputs[index], scale))
            if node.op_type == "Pad":
                dequantize_pad_value(new, node, scale)
            requantize_outputs(graph, node, scale, scales)
            found = True
    return found


def dequantize_pad_value(new: Replacement, node: ir.Node, scale: Scale) -> None:
    """Gives a Pad of integers the number that its pad value, by default the integer 0, stands for."""
    value, content = read_constant(input_of(node, PAD_VALUE)), content_of(scale)
    assert content is not None  # common_scale looks at it
    factor, zero = content
    number = np.float32((0 if value is None else int(value.item())) - zero) * np.float32(factor)
    node.resize_inputs(max(len(node.inputs), PAD_VALUE + 1))
    node.replace_input_with(PAD_VALUE, new.constant(np.asarray(number, np.float32)))


def common_scale(node: ir.Node, scales: dict[ir.Value, Scale]) -> Scale | None:
    """Returns the common scale of a node's data inputs; None where they have none, or different ones."""
    if (
        node.op_type == "Pad"
        and input_of(node, PAD_VALUE) is not None
        and read_constant(input_of(node, PAD_VALUE)) is None
    ):
        return None
    data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    found = [scales.get(value) if value is not None else None for value in data]
    contents = {None if scale is None else content_of(scale) for scale in found}
    return found[0] if len(contents) == 1 else None


def content_of(scale: Scale) -> tuple[float, int] | None:
    """Returns scale and zero point as numbers; None where they are no constants, or one for each channel."""
    numbers, zero = read_constant(scale[0]), read_constant(scale[1])
    if numbers is None or zero is None or numbers.size != 1:
        return None
    return float(numbers.item()), int(zero.item())


def requantize_outputs(graph: ir.Graph, node: ir.Node, scale: Scale, scales: dict[ir.Value, Scale]) -> None:
    """Emits QuantizeLinear behind every used output of a node, and makes its readers read that instead."""
    for output in node.outputs:
        if not is_used(output):
            continue
        quantized = ir.node("QuantizeLinear", [output, *scale], name=f"{node.name}/QuantizeLinear")
        result = quantized.outputs[0]
        graph.insert_after(node, quantized)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        quantized.replace_input_with(0, output)
        result.name, output.name = output.name, f"{output.name}_float"
        result.type, result.shape = output.type, output.shape
        output.type = None if scale[0] is None else scale[0].type
        scales[result] = scale
