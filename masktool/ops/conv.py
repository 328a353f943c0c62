"""Convolution.

``y = conv(fill(x, m, t))``, ``m' = maxpool(m)`` with the same kernel, stride, padding and dilation. ``fill`` is t
rounds of ``masktool::NeighborFill``; t is the distance in pixels between the two farthest inputs of a window (k − 1
for a k × k kernel without dilation), the largest distance from a kept input at which a kept output reads. A 1 × 1
convolution needs no fill.

Source: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023, section 3,
https://arxiv.org/abs/2211.14646. The paper runs t = k rounds; the last one changes nothing that is kept.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.ops.functions import NEIGHBOR_FILL
from masktool.ops.graph import Masked, MaskedGraph, dtype_of, input_at, sizes_of
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule
from masktool.ops.windows import pool_mask, window_of


@mask_rule("Conv")
def mask_conv(graph: MaskedGraph, node: ir.Node) -> None:
    """Fills the input's missing places from their neighbours, as far as the kernel reaches."""
    if any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its weights depend on the image")
    window, state = window_of(node, graph)
    node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, window.reach))
    graph.set_state(node.outputs[0], Masked(pool_mask(graph, state.mask, window)))


def fill(graph: MaskedGraph, value: ir.Value, mask: ir.Value, rounds: int) -> ir.Value:
    """Emits ``rounds`` rounds of neighbour fill; none leaves the value as it is."""
    channels = sizes_of(value)[1]
    if rounds and channels is None:
        raise RuleError("its number of input channels is not fixed")
    for _ in range(rounds):
        box = graph.constant(np.ones((channels, 1, 3, 3)), dtype_of(value))
        filled, known = graph.call(NEIGHBOR_FILL, value, mask, box, num_outputs=2, channels=channels)
        filled.shape, value, mask = value.shape, filled, known
    return value


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
