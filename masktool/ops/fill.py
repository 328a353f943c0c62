"""Neighbour fill: what stands in front of every window larger than one pixel.

t rounds of ``masktool::NeighborFill`` (see :mod:`masktool.ops.functions`); t is the distance in pixels between the two
farthest inputs of a window, the largest distance from a kept input at which a kept output reads.

Source: Balasubramanian and Feizi, 2023, section 3, https://arxiv.org/abs/2211.14646. The paper runs t = k rounds for a
k × k kernel; the last one changes nothing that is kept.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dtype_of, rank_of, sizes_of
from masktool.ops.functions import NEIGHBOR_FILL
from masktool.ops.graph import MaskedGraph
from masktool.ops.registry import RuleError


def fill(graph: MaskedGraph, value: ir.Value, mask: ir.Value, rounds: int) -> ir.Value:
    """Emits ``rounds`` rounds of neighbour fill; none leaves the value as it is."""
    if not rounds:
        return value
    channels, dtype = sizes_of(value)[1], dtype_of(value)
    if channels is None:
        raise RuleError("its number of input channels is not fixed")
    if rank_of(value) == 3:  # tokens are an image of one row
        axis = graph.constant([2], ir.DataType.INT64)
        row = graph.emit("Unsqueeze", value, axis)
        row.shape = ir.Shape([None, channels, 1, None])
        return graph.emit("Squeeze", fill(graph, row, graph.emit("Unsqueeze", mask, axis), rounds), axis)
    box = graph.constant(np.ones((channels, 1, 3, 3)), dtype)
    mask = graph.as_type(mask, dtype)
    for _ in range(rounds):
        filled, known = graph.call(NEIGHBOR_FILL, value, mask, box, num_outputs=2, channels=channels)
        filled.shape, value, mask = value.shape, filled, known
    return value
