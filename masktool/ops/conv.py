"""Convolution, and its transpose.

``layer`` masking: ``y = conv(fill(x, m, t))``, ``m' = maxpool(m)`` with the same kernel, stride, padding and dilation.
A 1 × 1 convolution needs no fill. The transposed convolution likewise, with m' wherever any kept place contributes.

``partial`` masking: ``y = (conv(x · m) − b) / c + b``, where c is the share of the window's places that is kept; what
lies outside the image counts on neither side. It is computed as ``conv(x · m) · r + b · (1 − r)``, r = 1 / c, so that a
mask of ones changes nothing; y is 0 where nothing is kept.

Sources: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023, section 3,
https://arxiv.org/abs/2211.14646; Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", 2018,
equation 1, https://arxiv.org/abs/1804.07723.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.ops.fill import fill
from masktool.ops.graph import Masked, MaskedGraph, dtype_of, input_at, sizes_of
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule
from masktool.ops.windows import image_state, pool_mask, window_of

TRANSPOSED_ATTRIBUTES = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")


@mask_rule("Conv")
def mask_conv(graph: MaskedGraph, node: ir.Node) -> None:
    """Fills the input's missing places from their neighbours, or counts kept places only."""
    refuse_own_weights(graph, node)
    window, state = window_of(node, graph)
    new_mask = pool_mask(graph, state.mask, window)
    if graph.masking == "partial" and window.kernel != (1, 1):
        attributes = {
            "strides": window.strides, "pads": window.pads, "dilations": window.dilations,
        }  # fmt: skip
        count_kept(graph, node, (1, 1, *window.kernel), new_mask, attributes)
    else:
        node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, window.reach))
        graph.set_state(node.outputs[0], Masked(new_mask))


@mask_rule("ConvTranspose")
def mask_conv_transpose(graph: MaskedGraph, node: ir.Node) -> None:
    """The same for a transposed convolution: one output sees inputs at most (kernel − 1) / stride pixels apart."""
    refuse_own_weights(graph, node)
    state = image_state(graph, node)
    kernel = sizes_of(input_at(node, 1))[2:]
    height, width = kernel
    if height is None or width is None:
        raise RuleError("the size of its kernel is unknown")
    attributes = {name: node.attributes[name].value for name in TRANSPOSED_ATTRIBUTES if name in node.attributes}
    box = graph.constant(np.ones((1, 1, height, width)), ir.DataType.FLOAT)
    new_mask = graph.emit("Sign", graph.emit("ConvTranspose", graph.emit("Sign", state.mask), box, **attributes))
    if graph.masking == "partial":
        count_kept(graph, node, (1, 1, height, width), new_mask, attributes)
        return
    strides = node.attributes.get_ints("strides") or (1, 1)
    dilations = node.attributes.get_ints("dilations") or (1, 1)
    reach = max(d * (k - 1) // s for d, k, s in zip(dilations, (height, width), strides, strict=True))
    node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, reach))
    graph.set_state(node.outputs[0], Masked(new_mask))


def refuse_own_weights(graph: MaskedGraph, node: ir.Node) -> None:
    """Raises RuleError where a convolution's weights depend on the image."""
    if any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its weights depend on the image")


def count_kept(
    graph: MaskedGraph, node: ir.Node, box_shape: tuple[int, ...], new_mask: ir.Value, attributes: dict[str, Any]
) -> None:
    """Renormalises a convolution by the share of its window that is kept (``partial`` masking).

    Args:
        graph: the graph under rewriting.
        node: the convolution.
        box_shape: (1, 1, height, width) of its kernel.
        new_mask: the mask of its output.
        attributes: of the node that say how its window slides.
    """
    value, output = input_at(node, 0), node.outputs[0]
    mask, dtype = graph.mask_of(value), dtype_of(output)
    box = graph.constant(np.ones(box_shape), ir.DataType.FLOAT)
    kept = graph.emit(node.op_type, mask, box, **attributes)
    in_image = graph.emit(node.op_type, graph.ones_like(mask), box, **attributes)
    factor = graph.as_type(graph.emit("Div", in_image, graph.divisor(kept)), dtype)
    node.replace_input_with(0, graph.weighted(value))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rest = None
    if bias is not None:  # emitted in front of the node, since it does not need its result
        by_channel = graph.emit("Unsqueeze", bias, graph.constant([1, 2], ir.DataType.INT64))
        rest = graph.emit("Mul", by_channel, graph.emit("Sub", graph.constant(1, dtype), factor))
    result = graph.emit_after(output, "Mul", output, factor)
    if rest is not None:
        result = graph.emit_after(result, "Add", result, rest)
    graph.set_state(result, Masked(new_mask))


add_samples(
    "Conv",
    Sample("same padding", "y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample(
        "bias, stride 2", "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)", {"w": (3, 4, 3, 3), "b": (3,)}
    ),
    Sample("valid 5x5", "y = Conv (x, w, b)", {"w": (3, 4, 5, 5), "b": (3,)}),
    Sample("depthwise", "y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", {"w": (4, 1, 3, 3)}),
    Sample("grouped", "y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w)", {"w": (6, 2, 3, 3)}),
    Sample("dilated", "y = Conv <dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("dilated by 3", "y = Conv <dilations = [3, 3], pads = [3, 3, 3, 3]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("1x7", "y = Conv <pads = [0, 3, 0, 3]> (x, w)", {"w": (3, 4, 1, 7)}),
    Sample("asymmetric pads", "y = Conv <pads = [0, 0, 1, 1], strides = [2, 2]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("pointwise", "y = Conv (x, w, b)", {"w": (3, 4, 1, 1), "b": (3,)}),
    Sample("pointwise, stride 2", "y = Conv <strides = [2, 2]> (x, w)", {"w": (3, 4, 1, 1)}),
    Sample(
        "two in a row",
        "h = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (h) y = Conv <pads = [1, 1, 1, 1]> (r, v)",
        {"w": (5, 4, 3, 3), "v": (3, 5, 3, 3)},
    ),
)
add_samples(
    "ConvTranspose",
    Sample(
        "2x2, stride 2",
        "h = ConvTranspose <strides = [2, 2]> (x, w, b) y = Conv <pads = [1, 1, 1, 1]> (h, v)",
        {"w": (4, 3, 2, 2), "b": (3,), "v": (2, 3, 3, 3)},
    ),
    Sample(
        "4x4, stride 2, padded",
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)",
        {"w": (4, 3, 4, 4), "b": (3,)},
    ),
    Sample(
        "3x3, output padding",
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
        {"w": (4, 3, 3, 3)},
    ),
    Sample("grouped", "y = ConvTranspose <group = 2, pads = [1, 1, 1, 1]> (x, w)", {"w": (4, 3, 3, 3)}),
)
