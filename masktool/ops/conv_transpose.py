"""The transposed convolution: a place is spread over several, as in decoders.

It is masked as the convolution is (:mod:`masktool.ops.conv`), with m' wherever any kept place contributes; what no
place contributes to (a stride above the kernel, dilation, output padding) is its bias, which is kept.

Source: the reasoning for convolutions of Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import fixed_sizes, input_at
from masktool.ops.conv import count_kept, refuse_computed_weights
from masktool.ops.fill import fill
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, refuse_parameters
from masktool.ops.graph import MaskedGraph, mask_rule
from masktool.ops.samples import Sample, add_samples
from masktool.ops.sliding import Window
from masktool.ops.windows import image_state, read_window

TRANSPOSED_ATTRIBUTES = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")


@mask_rule("ConvTranspose")
def mask_conv_transpose(graph: MaskedGraph, node: ir.Node) -> None:
    """Masks as for a convolution: one output sees inputs at most (kernel − 1) / stride pixels apart."""
    refuse_computed_weights(graph, node)
    state, window = image_state(graph, node), read_window(node)
    attributes = {name: node.attributes[name].value for name in TRANSPOSED_ATTRIBUTES if name in node.attributes}
    if "output_shape" in attributes:  # of old files, with batch and channels in front
        attributes["output_shape"] = attributes["output_shape"][-len(window.kernel) :]
    box = graph.constant(np.ones((1, 1, *window.kernel)), ir.DataType.FLOAT)
    new_mask = graph.step(graph.emit("ConvTranspose", graph.step(state.mask), box, **attributes))
    if not reaches_everywhere(node, window):
        whole = graph.filled_like(state.mask, 1)
        reached = graph.step(graph.emit("ConvTranspose", whole, box, **attributes))
        one = graph.constant(1, ir.DataType.FLOAT)
        new_mask = graph.emit("Add", new_mask, graph.emit("Sub", one, reached))
    if graph.masking == "partial":
        count_kept(graph, node, (1, 1, *window.kernel), new_mask, attributes)
        return
    reach = max(d * (k - 1) // s for d, k, s in zip(window.dilations, window.kernel, window.strides, strict=True))
    node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, reach))
    graph.set_state(node.outputs[0], state.replace(mask=new_mask, zeroed=False))


def reaches_everywhere(node: ir.Node, window: Window) -> bool:
    """Whether it is plain that every output of a transposed convolution sees an input."""
    axes = len(window.kernel)
    paddings = node.attributes.get_ints("output_padding") or [0] * axes
    without_gaps = set(window.dilations) == {1} and all(
        k >= stride for k, stride in zip(window.kernel, window.strides, strict=True)
    )
    within = all(padding <= pad for padding, pad in zip(paddings, window.pads[axes:], strict=True))
    return without_gaps and within and not {"auto_pad", "output_shape"} & set(node.attributes)


@gradient_rule("ConvTranspose")
def vjp_conv_transpose(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Convolves the gradient with the same weights."""
    refuse_parameters(graph, node)
    window = read_window(node)
    pads, axes = transposed_pads(node, window), len(window.kernel)
    gradient = first_gradient(gradients)
    if min(pads) < 0:
        cut = [min(pad, 0) for pad in pads]
        gradient = graph.emit("Pad", gradient, graph.ints(0, 0, *cut[:axes], 0, 0, *cut[axes:]))
    attributes = {"strides": window.strides, "dilations": window.dilations, "pads": [max(pad, 0) for pad in pads]}
    groups = node.attributes.get_int("group", 1)
    return [graph.emit("Conv", gradient, input_at(node, 1), group=groups, **attributes)]


def transposed_pads(node: ir.Node, window: Window) -> list[int]:
    """Returns the pads, all beginnings, then all ends, of the convolution that a transposed one undoes.

    It sees exactly the pixels that it is to give back. Where the node says its pads itself, no length is needed.
    """
    axes = len(window.kernel)
    if node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attributes:
        paddings = node.attributes.get_ints("output_padding") or [0] * axes
        ends = [pad - padding for pad, padding in zip(window.pads[axes:], paddings, strict=True)]
        return [*window.pads[:axes], *ends]
    sizes, out_sizes = fixed_sizes(input_at(node, 0))[2:], fixed_sizes(node.outputs[0])[2:]
    begins = transposed_begins(node, window, sizes, out_sizes)
    ends = [
        (size - 1) * stride + extent - out_size - begin
        for size, stride, extent, out_size, begin in zip(
            sizes, window.strides, extents_of(window), out_sizes, begins, strict=True
        )
    ]
    return [*begins, *ends]


def transposed_begins(node: ir.Node, window: Window, sizes: Sequence[int], out_sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns how many pixels a transposed convolution takes off the beginning of each axis.

    Source: ONNX operator specification, ConvTranspose: the total is shared out evenly, with an odd pixel at the end for
    SAME_UPPER and at the beginning otherwise; ONNX Runtime never takes off less than nothing.
    """
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "VALID" and "output_shape" not in node.attributes:
        return (0,) * len(sizes)
    paddings = node.attributes.get_ints("output_padding") or [0] * len(sizes)
    totals = [
        max((size - 1) * stride + padding + extent - out_size, 0)
        for size, stride, padding, extent, out_size in zip(
            sizes, window.strides, paddings, extents_of(window), out_sizes, strict=True
        )
    ]
    return tuple(total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals)


def extents_of(window: Window) -> list[int]:
    """Returns how many pixels a window spans along each axis."""
    return [d * (k - 1) + 1 for d, k in zip(window.dilations, window.kernel, strict=True)]


add_samples(
    "ConvTranspose",
    Sample(
        "stride above the kernel, then a convolution",
        "h = ConvTranspose <strides = [3, 3]> (x, w, b) y = Conv <pads = [1, 1, 1, 1]> (h, v)",
        {"w": (4, 3, 2, 2), "b": (3,), "v": (2, 3, 3, 3)},
    ),
    Sample(
        "dilated, places between that no input reaches",
        "y = ConvTranspose <strides = [2, 2], dilations = [2, 2]> (x, w, b)",
        {"w": (4, 3, 3, 3), "b": (3,)},
    ),
    Sample(
        "output padding beyond the last input",
        "y = ConvTranspose <strides = [2, 2], output_padding = [1, 1]> (x, w, b)",
        {"w": (4, 3, 2, 2), "b": (3,)},
    ),
    Sample(
        "the size of the output given, SAME_UPPER",
        'y = ConvTranspose <strides = [2, 2], output_shape = [18, 23], auto_pad = "SAME_UPPER"> (x, w, b)',
        {"w": (4, 3, 3, 3), "b": (3,)},
    ),
    Sample(
        "SAME_LOWER",
        'y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_LOWER"> (x, w, b)',
        {"w": (4, 3, 3, 3), "b": (3,)},
    ),
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
