"""Neighbour fill, which is emitted in front of every window larger than one pixel.

t rounds of ``masktool::NeighborFill`` (see :mod:`masktool.ops.functions`); t is the distance in pixels between the two
farthest inputs of a window, the largest distance from a kept input at which a kept output reads. On a map whose longer
side has fewer pixels, one less than these: no place is farther from another, and all are filled.

Source: Balasubramanian and Feizi, 2023, section 3, https://arxiv.org/abs/2211.14646. The paper runs t = k rounds for a
k × k kernel; the last one changes nothing that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.limits import check_limit
from masktool.ops.blocked import lies_in_blocks, spread_over_channels
from masktool.ops.builder import dtype_of, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.functions import FILL_EPSILON, FILL_WEIGHT, HALF_EPSILON, NEIGHBOR_FILL
from masktool.ops.graph import MaskedGraph

MOST_AXES = max(NEIGHBOR_FILL)
"""Most axes of places that a map to be filled has."""


def rounds_needed(reach: int, sides: Sequence[int | None]) -> int:
    """Returns how many rounds fill all places that a window can see.

    Args:
        reach: the distance in pixels between the farthest inputs of a window.
        sides: the lengths of the map's axes in pixels, None for open ones.
    """
    lengths = [side for side in sides if side is not None]
    return min(reach, max(*lengths, 1) - 1) if len(lengths) == len(sides) else reach


def fill(graph: MaskedGraph, value: ir.Value, mask: ir.Value, rounds: int) -> ir.Value:
    """Emits ``rounds`` rounds of neighbour fill, no more than the map is long, and returns the filled value."""
    channels, *sides = sizes_of(value)[1:]
    dtype = dtype_of(value)
    rounds = rounds_needed(rounds, sides)
    if not rounds:
        return value
    if channels is None:
        raise RuleError("its number of input channels is not fixed")
    check_limit("fill-rounds", rounds, where=None if graph.node is None else f"node {graph.node.name!r}")
    if len(sides) > MOST_AXES:
        raise RuleError(f"it slides over {len(sides)} axes; there is a fill for up to {MOST_AXES}")
    if rank_of(value) == 3:  # tokens and signals are images of one row
        axis = graph.constant([2], ir.DataType.INT64)
        row = graph.emit("Unsqueeze", value, axis)
        row.shape = ir.Shape([None, channels, 1, None])
        return graph.emit("Squeeze", fill(graph, row, graph.emit("Unsqueeze", mask, axis), rounds), axis)
    box = graph.constant(np.ones((channels, 1, *[3] * len(sides))), dtype)
    mask = graph.as_type(mask, dtype)
    epsilon = HALF_EPSILON if dtype == ir.DataType.FLOAT16 else FILL_EPSILON
    for number in range(rounds):
        weight, known = graph.call(FILL_WEIGHT[len(sides)], mask, num_outputs=2, epsilon=epsilon)
        spread = spread_over_channels(graph, mask, value) if number or lies_in_blocks(value) else mask
        weight = spread_over_channels(graph, weight, value)
        (filled,) = graph.call(NEIGHBOR_FILL[len(sides)], value, spread, weight, box, num_outputs=1, channels=channels)
        filled.shape, value, mask = value.shape, filled, known
    return value
