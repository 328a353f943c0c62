"""Operators that read or write by indices: each image by its own indices, or all images by the same."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from masktool.exporters.independence.elementwise import count_of_lengths, varies_beside
from masktool.exporters.independence.lengths import ONE, Product
from masktool.exporters.independence.states import (
    BatchGraph,
    Count,
    MixesError,
    Places,
    Rows,
    States,
    UnprovedError,
    axis_of,
    batch_rule,
    count_rule,
    place_rule,
    same,
    shared,
)
from masktool.exporters.node_inputs import constant_of, input_of

BY_PLACE = "takes images by their place in the batch"
PAIRS = "reads what belongs to all images for each of them"


@batch_rule("Gather")
def batch_gather(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Gather of the same places of every image, or of every image's own places of a table that all share.

    A table of all images, read where each of them stands, gives every image what is its own.
    """
    axis, places = axis_of(node, graph.rank(node.inputs[0]), 0), graph.state(node.inputs[1])
    data = graph.rows(node.inputs[0])
    if isinstance(places, Places) and places.high < places.stride and data == Rows(axis, inner=Product(places.stride)):
        return same(node, Rows(axis + places.axis))
    indices = graph.rows(node.inputs[1])
    if data is not None and indices is not None:
        raise MixesError(PAIRS if data.axis != axis else "looks up images by computed indices")
    if data is None:
        assert indices is not None
        return same(node, indices.at(indices.axis + axis))
    if data.axis == axis:
        raise MixesError(BY_PLACE)
    moved = data.axis + (graph.rank(node.inputs[1]) - 1 if axis < data.axis else 0)
    return same(node, data.at(moved))


@count_rule("Gather")
def count_gather(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Gather of some of the lengths of a shape."""
    elements, indices = graph.elements(node.inputs[0]), constant_of(node.inputs[1])
    if elements is None or indices is None or indices.ndim > 1:
        return same(node, Count(varies_beside(graph, node, None)))
    if any(not -len(elements) <= index < len(elements) for index in indices.reshape(-1).tolist()):
        raise UnprovedError("its index is beyond the shape")
    return same(node, count_of_lengths(graph, tuple(elements[index] for index in indices.reshape(-1).tolist())))


@batch_rule("GatherElements", "ScatterElements")
def batch_elements(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an operator whose data, indices and updates hold the images on one axis, which is not the indexed one."""
    found = [graph.rows(value) for value in node.inputs]
    held = [rows for rows in found if rows is not None]
    if held[0].axis == axis_of(node, graph.rank(node.inputs[0]), 0):
        raise MixesError("looks up images by indices")
    if len(held) != len(found):
        raise UnprovedError("meets images with indices or values of a fixed number of rows")
    return same(node, shared(held))


@batch_rule("GatherND")
def batch_gather_nd(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a GatherND: the first ``batch_dims`` axes go together, and axes behind the indexed ones stay whole."""
    data, indices = graph.rows(node.inputs[0]), graph.rows(node.inputs[1])
    together, depth = node.attributes.get_int("batch_dims", 0) or 0, index_depth(graph, node)
    rank = graph.rank(node.inputs[1])
    if data is not None and indices is not None:
        if data.axis >= together:
            raise MixesError(PAIRS)
        return same(node, shared([data, indices]))
    if data is None:
        assert indices is not None
        if indices.axis < together or indices.axis == rank - 1:
            raise UnprovedError("its indices are of a number of images, and what it reads is not")
        return same(node, indices)
    if data.axis < together + depth:
        raise MixesError(BY_PLACE)
    return same(node, data.at(data.axis - together - depth + rank - 1))


@batch_rule("ScatterND")
def batch_scatter_nd(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a ScatterND that writes the same places of every image, on an axis that is not indexed."""
    data, indices, updates = (graph.rows(value) for value in node.inputs)
    if data is None or indices is not None or updates is None:
        raise UnprovedError("writes into a batch by indices")
    depth = index_depth(graph, node)
    if data.axis < depth:
        raise MixesError("writes images by their place in the batch")
    if updates != data.at(data.axis - depth + graph.rank(node.inputs[1]) - 1):
        raise MixesError("writes one image into another")
    return same(node, data)


def index_depth(graph: BatchGraph, node: ir.Node) -> int:
    """Returns how many axes the indices of a GatherND or ScatterND index."""
    depth = graph.lengths(node.inputs[1])[-1]
    if depth is None or depth.symbols:
        raise UnprovedError("the shape of its indices is not known")
    return depth.number


@batch_rule("OneHot")
def batch_one_hot(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a OneHot, which adds the axis of the classes."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0]) + 1
    axis = axis_of(node, rank, -1)
    return same(node, rows.at(rows.axis + (axis <= rows.axis)))


@batch_rule("Compress")
def batch_compress(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Compress that keeps the same places of every image."""
    if graph.rows(input_of(node, 1)) is not None:
        raise MixesError("keeps places by a condition over the whole batch")
    rows, axis = graph.rows_of(node), node.attributes.get_int("axis", None)
    if axis is None or axis % graph.rank(node.inputs[0]) == rows.axis:
        raise MixesError(BY_PLACE)
    return same(node, rows)


@batch_rule("NonZero", "NonMaxSuppression", "Unique")
def batch_list(graph: BatchGraph, node: ir.Node) -> States:
    """Refuses an operator that gives one list for all images together."""
    del graph, node
    raise MixesError("gives one list for the whole batch")


@count_rule("Range")
def count_range(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Range: one from 0 to the number of images gives the place of each image."""
    if [graph.elements(value) for value in node.inputs] == [(Product(0),), (graph.batch,), (ONE,)]:
        return same(node, Places(0))
    return same(node, Count(varies_beside(graph, node, None)))


@place_rule("Identity", "Cast", "Unsqueeze")
def place_unsqueeze(graph: BatchGraph, node: ir.Node) -> States:
    """Follows places through an operator that keeps the numbers and may add axes of length 1."""
    places, added = graph.state(node.inputs[0]), constant_of(input_of(node, 1))
    if not isinstance(places, Places) or (len(node.inputs) > 1 and added is None):
        return same(node, Count(True))
    if node.op_type == "Cast" and node.outputs[0].dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return same(node, Count(True))
    if added is None:
        return same(node, places)
    rank = graph.rank(node.inputs[0]) + added.size
    kept = [axis for axis in range(rank) if axis not in {int(each) % rank for each in added.reshape(-1)}]
    return same(node, dataclasses.replace(places, axis=kept[places.axis]))


@place_rule("Mul", "Add")
def place_arithmetic(graph: BatchGraph, node: ir.Node) -> States:
    """Follows places to which a constant is added, or whose strides are multiplied by one number."""
    states = [graph.state(value) for value in node.inputs]
    index = 0 if isinstance(states[0], Places) else 1
    places, other = states[index], constant_of(node.inputs[1 - index])
    if not isinstance(places, Places) or other is None or not other.size or other.min() < 0:
        return same(node, Count(True))
    low, high, rank = int(other.min()), int(other.max()), graph.rank(node.inputs[index])
    axis = places.axis + max(other.ndim - rank, 0)
    along = axis - max(rank, other.ndim) + other.ndim
    if node.op_type == "Mul":
        if low != high or other.size > 1:
            return same(node, Count(True))
        return same(node, Places(axis, places.stride * low, places.low * low, places.high * low))
    if along >= 0 and other.shape[along] != 1:
        return same(node, Count(True))
    return same(node, Places(axis, places.stride, places.low + low, places.high + high))


@count_rule("Size")
def count_size(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Size of a list of lengths, which gives their number."""
    elements = graph.elements(node.inputs[0])
    if elements is None:
        return same(node, Count(varies_beside(graph, node, None)))
    return same(node, Count(False, (Product(len(elements)),)))
