"""Convolution.

``layer`` masking: ``y = conv(fill(x, m, t))``, ``m' = maxpool(m)`` with the same kernel, stride, padding and dilation.
A 1 × 1 convolution needs no fill.

A kernel that spans less than its stride s looks at some places of each s × s cell of the map. Under the ``cell`` rule
an output is kept where any place of its cell is, and s − 1 rounds of fill give the places that are looked at a value:
both are those of a kernel as wide as the stride. Under the ``published`` rule m' looks where the kernel does.

``partial`` masking: ``y = (conv(x · m) − b) / c + b``, where c is the share of the window's places that is kept; what
lies outside the image counts on neither side. It is computed as ``conv(x · m) · r + b · (1 − r)``, r = 1 / c, so that a
mask of ones changes nothing; y is 0 where nothing is kept.

Sources: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023, section 3,
https://arxiv.org/abs/2211.14646; Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", 2018,
equation 1, https://arxiv.org/abs/1804.07723.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dtype_of, fixed_sizes, input_at
from masktool.ops.errors import RuleError
from masktool.ops.fill import fill
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, refuse_parameters
from masktool.ops.graph import MaskedGraph, mask_rule
from masktool.ops.samples import Sample, add_samples
from masktool.ops.sliding import Window
from masktool.ops.windows import fixed_window, kept_window, pool_mask, window_of


@mask_rule("Conv")
def mask_conv(graph: MaskedGraph, node: ir.Node) -> None:
    """Fills the input's missing places from their neighbours, or counts kept places only."""
    refuse_computed_weights(graph, node)
    window, state = window_of(node, graph)
    deciding = kept_window(graph, window)
    new_mask = pool_mask(graph, state.mask, deciding)
    if graph.masking == "partial" and not window.is_point:
        attributes = {
            "strides": window.strides, "pads": window.pads, "dilations": window.dilations,
        }  # fmt: skip
        count_kept(graph, node, (1, 1, *window.kernel), new_mask, attributes)
    else:
        node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, deciding.reach))
        graph.set_state(node.outputs[0], state.replace(mask=new_mask, zeroed=False))


def refuse_computed_weights(graph: MaskedGraph, node: ir.Node) -> None:
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
        attributes: those attributes of the convolution that say how its window slides.
    """
    value, output = input_at(node, 0), node.outputs[0]
    state, dtype = graph.known_state(value), dtype_of(output)
    mask = state.mask
    box = graph.constant(np.ones(box_shape), ir.DataType.FLOAT)
    kept = graph.emit(node.op_type, mask, box, **attributes)
    in_image = graph.emit(node.op_type, graph.filled_like(mask, 1), box, **attributes)
    factor = graph.as_type(graph.emit("Div", in_image, graph.divisor(kept)), dtype)
    node.replace_input_with(0, graph.weighted(value))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rest = None
    if bias is not None:  # emitted in front of the node, since it does not need its result
        by_channel = graph.emit("Unsqueeze", bias, graph.constant(range(1, len(box_shape) - 1), ir.DataType.INT64))
        rest = graph.emit("Mul", by_channel, graph.emit("Sub", graph.constant(1, dtype), factor))
    result = graph.emit_after(output, "Mul", output, factor)
    if rest is not None:
        result = graph.emit_after(result, "Add", result, rest)
    graph.set_state(result, state.replace(mask=new_mask, zeroed=False))


@gradient_rule("Conv")
def vjp_conv(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Convolves the gradient with the transposed weights, flipped; with a stride, it is a transposed convolution.

    ONNX Runtime multiplies and adds up columns for the latter, which its convolutions outrun at stride 1 alone.
    """
    refuse_parameters(graph, node)
    gradient, factor = graph.unscaled(first_gradient(gradients))
    value, weight = input_at(node, 0), input_at(node, 1)
    window = fixed_window(node)
    if factor is not None:
        weight = graph.emit("Mul", weight, graph.emit("Reshape", factor, graph.ints(-1, 1, *[1] * len(window.kernel))))
    if set(window.strides) == {1} and window.reaches_over_pads:
        return [convolve_back(graph, node, gradient, weight, window)]
    attributes = transposed_attributes(node, value, window)
    channels, in_group = fixed_sizes(input_at(node, 1))[:2]
    if in_group == 1 and 1 < attributes["group"] < channels:
        return [transpose_beside_zeros(graph, gradient, weight, attributes)]
    return [graph.in_blocks(value, graph.emit("ConvTranspose", gradient, weight, **attributes))]


def transpose_beside_zeros(
    graph: GradientGraph, gradient: ir.Value, weight: ir.Value, attributes: dict[str, Any]
) -> ir.Value:
    """Returns a grouped transposed convolution to one channel a group, computed with a second one of zeros beside it.

    On WebGPU, ONNX Runtime 1.27 and 1.30 give wrong numbers where several channels of a group become a single one.
    """
    dimensions = len(attributes["strides"])
    nothing = [0] * dimensions
    two = graph.emit("Pad", weight, graph.ints(0, 0, *nothing, 0, 1, *nothing))
    both = graph.emit("ConvTranspose", gradient, two, **attributes)
    return graph.emit("Slice", both, graph.ints(0), graph.ints(2 * attributes["group"]), graph.ints(1), graph.ints(2))


def convolve_back(
    graph: GradientGraph, node: ir.Node, gradient: ir.Value, weight: ir.Value, window: Window
) -> ir.Value:
    """Returns the gradient of a convolution of stride 1: a convolution, padded the other way round."""
    groups = node.attributes.get_int("group", 1)
    ends = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)] * 2
    pads = [end - pad for end, pad in zip(ends, window.pads, strict=True)]
    swapped = transposed_weight(graph, weight, fixed_sizes(input_at(node, 1)), groups)
    flipped = flipped_weight(graph, swapped, len(window.kernel))
    return graph.emit("Conv", gradient, flipped, pads=pads, dilations=window.dilations, group=groups)


def transposed_attributes(node: ir.Node, value: ir.Value, window: Window) -> dict[str, Any]:
    """Returns the attributes of the ConvTranspose that undoes a convolution of ``value``."""
    paddings = []
    for axis in range(len(window.kernel)):
        size, out_size = fixed_sizes(value)[axis + 2], fixed_sizes(node.outputs[0])[axis + 2]
        kernel = window.dilations[axis] * (window.kernel[axis] - 1) + 1
        unpadded = (
            (out_size - 1) * window.strides[axis] + kernel - window.pads[axis] - window.pads[axis + len(window.kernel)]
        )
        paddings.append(size - unpadded)
    return {
        "strides": window.strides,
        "pads": window.pads,
        "dilations": window.dilations,
        "group": node.attributes.get_int("group", 1),
        "output_padding": paddings,
    }


def transposed_weight(graph: GradientGraph, weight: ir.Value, sizes: Sequence[int], groups: int) -> ir.Value:
    """Returns weights (O, I / g, k₁, k₂, …) as (I, O / g, k₁, k₂, …)."""
    out_channels, in_group, *kernel = sizes
    if groups == 1:
        return graph.emit("Transpose", weight, perm=[1, 0, *range(2, 2 + len(kernel))])
    cut = graph.emit("Reshape", weight, graph.ints(groups, out_channels // groups, in_group, *kernel))
    swapped = graph.emit("Transpose", cut, perm=[0, 2, 1, *range(3, 3 + len(kernel))])
    return graph.emit("Reshape", swapped, graph.ints(groups * in_group, out_channels // groups, *kernel))


def flipped_weight(graph: GradientGraph, weight: ir.Value, dimensions: int) -> ir.Value:
    """Returns weights with the places of their kernel, of so many dimensions, in the opposite order."""
    backwards, smallest = [-1] * dimensions, [-(2**31)] * dimensions
    axes = range(2, 2 + dimensions)
    return graph.emit("Slice", weight, *(graph.ints(*each) for each in (backwards, smallest, axes, backwards)))


add_samples(
    "Conv",
    Sample("same padding", "y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample(
        "bias, stride 2", "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)", {"w": (3, 4, 3, 3), "b": (3,)}
    ),
    Sample("valid 5x5", "y = Conv (x, w, b)", {"w": (3, 4, 5, 5), "b": (3,)}),
    Sample("depthwise", "y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", {"w": (4, 1, 3, 3)}),
    Sample(
        "depthwise, two channels each, strided",
        "y = Conv <group = 4, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)",
        {"w": (8, 1, 3, 3)},
    ),
    Sample("grouped", "y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w)", {"w": (6, 2, 3, 3)}),
    Sample("dilated", "y = Conv <dilations = [2, 2], pads = [2, 2, 2, 2]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("dilated by 3", "y = Conv <dilations = [3, 3], pads = [3, 3, 3, 3]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("1x7", "y = Conv <pads = [0, 3, 0, 3]> (x, w)", {"w": (3, 4, 1, 7)}),
    Sample("asymmetric pads", "y = Conv <pads = [0, 0, 1, 1], strides = [2, 2]> (x, w)", {"w": (3, 4, 3, 3)}),
    Sample("pointwise", "y = Conv (x, w, b)", {"w": (3, 4, 1, 1), "b": (3,)}),
    Sample("pointwise, stride 2", "y = Conv <strides = [2, 2]> (x, w)", {"w": (3, 4, 1, 1)}, narrow=True),
    Sample(
        "narrower than its stride along one axis",
        "y = Conv <strides = [3, 2], pads = [1, 0, 0, 1]> (x, w, b)",
        {"w": (3, 4, 2, 3), "b": (3,)},
        narrow=True,
    ),
    Sample(
        "dilated, narrower than its stride, padded beyond a half",
        "y = Conv <strides = [4, 4], dilations = [2, 2], pads = [2, 1, 2, 2]> (x, w)",
        {"w": (3, 4, 2, 2)},
        narrow=True,
    ),
    Sample(
        "patches with gaps between, in a group for each channel",
        "y = Conv <strides = [4, 4], group = 4> (x, w, b)",
        {"w": (8, 1, 3, 3), "b": (8,)},
        size=(16, 12),
        narrow=True,
    ),
    Sample(
        "two in a row",
        "h = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (h) y = Conv <pads = [1, 1, 1, 1]> (r, v)",
        {"w": (5, 4, 3, 3), "v": (3, 5, 3, 3)},
    ),
    Sample(
        "over tokens", "f = Reshape (x, flat) y = Conv <pads = [2, 2]> (f, w)", {"w": (3, 4, 5)}, {"flat": (-1, 4, 99)}
    ),
    Sample(
        "over every third token",
        "f = Reshape (x, flat) y = Conv <strides = [3]> (f, w)",
        {"w": (3, 4, 1)},
        {"flat": (-1, 4, 99)},
        narrow=True,
    ),
    Sample(
        "in windows that are merged into the batch",
        "a = Reshape (x, cut) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) c = Reshape (b, windows) "
        "d = Conv <pads = [1, 1, 1, 1]> (c, w) e = Reshape (d, uncut) f = Transpose <perm = [0, 2, 1, 3, 4]> (e) "
        "g = Reshape (f, whole) h = Add (g, x) y = Conv <pads = [1, 1, 1, 1]> (h, w)",
        {"w": (4, 4, 3, 3)},
        {"cut": (-1, 4, 2, 4, 12), "windows": (-1, 4, 4, 12), "uncut": (-1, 2, 4, 4, 12), "whole": (-1, 4, 8, 12)},
        size=(8, 12),
    ),
)
