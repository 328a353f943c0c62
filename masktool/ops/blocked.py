"""Masks in the layout in which ONNX Runtime's CPU provider keeps the maps of convolutions.

Between convolutions, its maps lie in blocks of channels. It multiplies two maps there, but no map and a mask of one
channel: for that it would bring the map into the ordinary layout and back, each as long as the product itself. A mask
spread over the channels stays, and costs less than one of the two: a convolution of one pixel, with weights of 1, makes
it in blocks.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import GraphBuilder, rank_of, sizes_of

BLOCK = 16
"""The most channels that a block has, on any processor: what divides by that lies in blocks."""
KEEPS_BLOCKS = (
    "AveragePool", "BatchNormalization", "Clip", "Concat", "HardSigmoid", "Identity", "LeakyRelu", "MaxPool", "Relu",
    "Sigmoid", "Tanh",
)  # fmt: skip
"""Operators that ONNX Runtime computes in blocks, at least right behind a convolution; the first input tells."""
JOINS_BLOCKS = ("Add", "Mul", "Sum")
"""Operators that it computes in blocks where all inputs have the same shape."""
NEIGHBOURS = "NeighborFill"


def fits_blocks(value: ir.Value) -> bool:
    """Whether a value is a map whose channels fill whole blocks."""
    if value.dtype != ir.DataType.FLOAT or value.shape is None or rank_of(value) != 4:
        return False
    channels = sizes_of(value)[1]
    return channels is not None and channels % BLOCK == 0


def lies_in_blocks(value: ir.Value) -> bool:
    """Whether ONNX Runtime can be expected to have a value in blocks, from the operators that made it."""
    while fits_blocks(value):
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "Conv":
            return True
        first = node.inputs[0]
        alike = node.op_type in JOINS_BLOCKS and all(
            source is not None and source.shape is not None and sizes_of(source)[1:] == sizes_of(value)[1:]
            for source in node.inputs
        )
        if first is None or not (alike or node.op_type in (*KEEPS_BLOCKS, NEIGHBOURS)):
            return False
        value = first
    return False


def spread_over_channels(graph: GraphBuilder, mask: ir.Value, value: ir.Value) -> ir.Value:
    """Returns a mask (N, 1, h, w) with the channels of a map, in blocks; where these do not fit, the mask itself.

    Args:
        graph: the graph under rewriting.
        mask: the mask, as long as the map along all axes but that of the channels.
        value: the map (N, C, h, w).
    """
    if not fits_blocks(value):
        return mask
    spread = graph.emit("Conv", mask, graph.constant(np.ones((sizes_of(value)[1], 1, 1, 1)), ir.DataType.FLOAT))
    spread.shape = value.shape
    return spread


def read_masks_unspread(graph: ir.Graph) -> None:
    """Makes products of maps and masks that were spread over channels read the masks themselves, in place.

    The products keep their values and shapes. Spread masks that nothing reads any more are left in the graph.
    """
    for node in graph:
        if is_spread(node):
            mask, spread = node.inputs[0], node.outputs[0]
            for user, index in tuple(spread.uses()):
                if user.op_type == "Mul" and user.inputs[1 - index] is not spread and is_as_wide(user, 1 - index):
                    user.replace_input_with(index, mask)


def is_spread(node: ir.Node) -> bool:
    """Whether a node is what :func:`spread_over_channels` emits."""
    if node.op_type != "Conv" or node.attributes or len(node.inputs) != 2:
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.const_value.shape[1:] != (1, 1, 1):
        return False
    return bool((weight.const_value.numpy() == 1).all())


def is_as_wide(product: ir.Node, index: int) -> bool:
    """Whether a factor of a product has as many channels as the product."""
    factor, result = product.inputs[index], product.outputs[0]
    if factor is None or factor.shape is None or result.shape is None:
        return False
    return factor.shape[1] == result.shape[1]
