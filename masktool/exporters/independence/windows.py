"""Operators that have the batch on axis 0 by definition: convolutions, pools, norms over maps, samplers."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.independence.states import (
    BatchGraph,
    MixesError,
    States,
    UnprovedError,
    batch_rule,
    listed_axes,
    same,
    shared,
)
from masktool.exporters.node_inputs import constant_of, input_of

IMAGE_INPUTS = {
    "Conv": (0,),
    "ConvTranspose": (0,),
    "ConvInteger": (0,),
    "AveragePool": (0,),
    "MaxPool": (0,),
    "LpPool": (0,),
    "GlobalAveragePool": (0,),
    "GlobalMaxPool": (0,),
    "GlobalLpPool": (0,),
    "InstanceNormalization": (0,),
    "GroupNormalization": (0,),
    "LRN": (0,),
    "DepthToSpace": (0,),
    "SpaceToDepth": (0,),
    "Col2Im": (0,),
    "GridSample": (0, 1),
    "AffineGrid": (0,),
    "DeformConv": (0, 2, 4),
}
"""Indices of the inputs with one row per image, by operator; all other inputs are the same for all images."""


@batch_rule(*IMAGE_INPUTS)
def batch_first(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an operator that takes and gives the images on axis 0."""
    given = [index for index in IMAGE_INPUTS[node.op_type] if input_of(node, index) is not None]
    sized = (1,) if node.op_type == "AffineGrid" else ()  # the size that it makes, the batch among it
    others = [value for index, value in enumerate(node.inputs) if index not in (*given, *sized)]
    if any(graph.rows(value) is not None for value in others):
        raise UnprovedError("its parameters depend on the images")
    if sized:
        graph.refuse_varying(node.inputs[1], range(1, graph.rank(node.inputs[0]) + 1), "the size that it makes")
    found = [rows for index in given if (rows := graph.rows(node.inputs[index])) is not None]
    if len(found) != len(given):
        raise UnprovedError("meets images with what has one row for all of them")
    rows = shared(found)
    if rows.axis != 0:
        raise MixesError(f"takes the batch, which lies on axis {rows.axis}, for channels or places")
    if len(node.outputs) > 1 and any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise UnprovedError("its second result counts places over the whole batch")
    return same(node, rows)


@batch_rule("BatchNormalization")
def batch_norm(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a BatchNormalization that uses the statistics of the training, and refuses one in training mode."""
    if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
        raise MixesError("takes mean and variance over the batch (training mode)")
    rows = graph.rows_of(node)
    if rows.axis == 1:
        raise MixesError("takes the batch for channels")
    return same(node, rows)


@batch_rule("Resize")
def batch_resize(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Resize, which must leave the images' axis as it is."""
    rows = graph.rows(node.inputs[0])
    if rows is None:
        raise UnprovedError("its sizes depend on the images")
    rank = graph.rank(node.inputs[0])
    axes = listed_axes(node, len(node.inputs), rank)  # an attribute alone
    axes = list(range(rank)) if axes is None else axes
    position = axes.index(rows.axis) if rows.axis in axes else None
    others = [index for index in range(len(axes)) if index != position]
    for value in node.inputs[1:]:
        graph.refuse_varying(value, others, "to what it resizes")
    if position is None:
        return same(node, rows)
    crops = node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crops or node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnprovedError("it may resize the batch")
    scales, sizes = constant_of(input_of(node, 2)), graph.elements(input_of(node, 3))
    if scales is not None and scales.size and scales.reshape(-1)[position] == 1:
        return same(node, rows)
    if sizes is not None and sizes[position] == graph.lengths(node.inputs[0])[rows.axis]:
        return same(node, rows)
    raise UnprovedError("it may resize the batch")
