"""Operators that move, join and cut axes: the images' axis is followed, with the factors that are merged into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.independence.elementwise import broadcast_rows, count_of_lengths, varies_beside
from masktool.exporters.independence.lengths import ONE, Product, multiply_lengths, solve_unknown
from masktool.exporters.independence.states import (
    BatchGraph,
    Count,
    MixesError,
    Rows,
    States,
    UnprovedError,
    axis_of,
    batch_rule,
    count_rule,
    listed_axes,
    same,
)
from masktool.exporters.node_inputs import constant_of, input_of

TO_THE_END = 2**31 - 1
"""Ends of a Slice from here on mean the end of the axis."""
Lengths = Sequence[Product | None]


@batch_rule("Reshape")
def batch_reshape(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Reshape: what stands in memory before the images stays before them, what stands behind stays behind."""
    return same(node, reshaped_rows(graph, node.inputs[0], target_lengths(graph, node)))


def target_lengths(graph: BatchGraph, node: ir.Node) -> list[Product | None]:
    """Returns the lengths that a Reshape asks for, None for the one that follows from the others."""
    given, before = graph.elements(node.inputs[1]), graph.lengths(node.inputs[0])
    if given is None:
        return lengths_after(graph, node)
    keeps = not node.attributes.get_int("allowzero", 0)
    lengths: list[Product | None] = []
    for axis, length in enumerate(given):
        if length == Product(0) and keeps:
            lengths.append(before[axis] if axis < len(before) else None)
        else:
            lengths.append(None if length == Product(-1) else length)
    return lengths


def lengths_after(graph: BatchGraph, node: ir.Node) -> list[Product | None]:
    """Returns the lengths inferred for a node's result, None for those with symbols that its first input lacks."""
    known = {symbol for length in graph.lengths(node.inputs[0]) if length for symbol in length.symbols}
    found = graph.lengths(node.outputs[0])
    return [length if length is not None and set(length.symbols) <= known else None for length in found]


def reshaped_rows(graph: BatchGraph, value: ir.Value | None, lengths: Lengths) -> Rows:
    """Returns where the images lie in the result of a Reshape.

    Raises:
        BatchRuleError: the images are cut apart, or not all lengths are known.
    """
    outer, inner = around_images(graph, value)
    total = multiply_lengths([outer, graph.batch, inner])
    assert total is not None
    solved = solve_unknown(lengths, total)
    for rows in split_at_images(outer, inner, solved):
        if solved[rows.axis] == multiply_lengths([rows.outer, graph.batch, rows.inner]):
            return rows
    if None in solved:
        raise UnprovedError("the shape that it gives is not known")
    raise MixesError("puts parts of several images into one row")


def around_images(graph: BatchGraph, value: ir.Value | None) -> tuple[Product, Product]:
    """Returns how many elements stand before the images, and how many behind, in the order of memory.

    Raises:
        UnprovedError: a length is unknown.
    """
    rows, lengths = graph.rows(value), graph.lengths(value)
    assert rows is not None
    outer = multiply_lengths([*lengths[: rows.axis], rows.outer])
    inner = multiply_lengths([rows.inner, *lengths[rows.axis + 1 :]])
    if outer is None or inner is None:
        raise UnprovedError("the shape of its input is not known")
    return outer, inner


def split_at_images(outer: Product, inner: Product, lengths: Lengths) -> Iterator[Rows]:
    """Yields every axis of a shape on which the images may lie, with the factors merged with them there."""
    for axis in range(len(lengths)):
        before, behind = multiply_lengths(lengths[:axis]), multiply_lengths(lengths[axis + 1 :])
        if before is None or behind is None:
            continue
        left, right = outer.over(before), inner.over(behind)
        if left is not None and right is not None:
            yield Rows(axis, left, right)


@batch_rule("Flatten")
def batch_flatten(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Flatten, a Reshape to two axes: those in front of ``axis`` and those from it on."""
    lengths = graph.lengths(node.inputs[0])
    axis = node.attributes.get_int("axis", 1) or 0
    axis = axis + len(lengths) if axis < 0 else axis
    return same(
        node, reshaped_rows(graph, node.inputs[0], [multiply_lengths(lengths[:axis]), multiply_lengths(lengths[axis:])])
    )


@batch_rule("Squeeze")
def batch_squeeze(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Squeeze, which drops axes of length 1; the images' axis may not be among them."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    axes = listed_axes(node, 1, rank)
    if not axes:
        raise UnprovedError("it drops every axis of length 1, the batch too where there is one image")
    if rows.axis in axes:
        raise MixesError("drops the batch")
    return same(node, rows.at(rows.axis - sum(axis < rows.axis for axis in axes)))


@batch_rule("Unsqueeze")
def batch_unsqueeze(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an Unsqueeze, which adds axes of length 1."""
    rows, added = graph.rows_of(node), constant_of(node.inputs[1])
    if added is None:
        raise UnprovedError("the axes that it adds are computed")
    rank = graph.rank(node.inputs[0]) + added.size
    new = {int(axis) % rank for axis in added.reshape(-1)}
    kept = [axis for axis in range(rank) if axis not in new]
    return same(node, rows.at(kept[rows.axis]))


@batch_rule("Transpose")
def batch_transpose(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Transpose: the images lie where the permutation sends their axis."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    order = list(node.attributes.get_ints("perm") or range(rank)[::-1])
    return same(node, rows.at(order.index(rows.axis)))


@batch_rule("Expand")
def batch_expand(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an Expand of images, which repeats along axes of length 1 other than theirs."""
    rows, rank = graph.rows(node.inputs[0]), graph.rank(node.inputs[0])
    if rows is None:
        raise UnprovedError("its target shape depends on the images")
    target = graph.elements(node.inputs[1])
    count = graph.rank(node.outputs[0]) if target is None else len(target)
    moved = rows.at(rows.axis + max(count - rank, 0))
    own = multiply_lengths([rows.outer, graph.batch, rows.inner])
    asked = target[rows.axis + count - rank] if target and rows.axis + count - rank >= 0 else ONE
    if target is not None and asked not in (ONE, own):
        raise UnprovedError("it asks for a number of images")
    found = lengths_after(graph, node) if target is None else [own] * count
    if found[moved.axis] != own:
        raise UnprovedError("the shape that it gives is not known")
    if None in found or target is not None:  # where inference knows every length, it knows that they do not vary
        others = [index for index in range(count) if index != rows.axis + count - rank]
        graph.refuse_varying(node.inputs[1], others, "how often it repeats")
    return same(node, moved)


@count_rule("Expand")
def count_expand(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an Expand that repeats the same block for every image."""
    target = graph.elements(node.inputs[1])
    if isinstance(graph.state(node.inputs[0]), Count) or not varies_beside(graph, node, 0):
        return same(node, Count(varies_beside(graph, node, None)))
    if target is None:
        return same(node, graph.rows_along(graph.inferred_lengths(node.outputs[0])))
    rows = graph.rows_along(target)
    axis = rows.axis - len(target) + graph.rank(node.inputs[0])
    if axis >= 0 and graph.lengths(node.inputs[0])[axis] != ONE:
        raise UnprovedError("it has another block for each image")
    return same(node, rows.at(max(rows.axis, axis)))


@count_rule("ConstantOfShape")
def count_constant_of_shape(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a ConstantOfShape: one number everywhere, in a shape that may hold the batch."""
    lengths = graph.elements(node.inputs[0])
    if not varies_beside(graph, node, None):
        return same(node, Count(False))
    return same(node, graph.rows_along(graph.inferred_lengths(node.outputs[0]) if lengths is None else lengths))


@batch_rule("Tile")
def batch_tile(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Tile of images: an axis is repeated as a whole, so that the repetition stands before the images."""
    rows, repeats = graph.rows_of(node), graph.elements(node.inputs[1])
    if repeats is None or repeats[rows.axis] is None:
        raise UnprovedError("how often it repeats the batch is computed")
    outer = multiply_lengths([repeats[rows.axis], rows.outer])
    assert outer is not None
    return same(node, Rows(rows.axis, outer, rows.inner))


@count_rule("Tile")
def count_tile(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Tile that repeats the same block for every image."""
    repeats = graph.elements(node.inputs[1])
    if isinstance(graph.state(node.inputs[0]), Count) or not varies_beside(graph, node, 0) or repeats is None:
        return same(node, Count(varies_beside(graph, node, None)))
    rows = graph.rows_along(repeats)
    if graph.lengths(node.inputs[0])[rows.axis] != ONE:
        raise UnprovedError("it has another block for each image")
    return same(node, rows)


@batch_rule("Concat")
def batch_concat(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Concat along another axis than the images', or of whole batches along theirs, one after the other."""
    inputs = [value for value in node.inputs if value is not None]
    rank = graph.rank(inputs[0])
    axis = axis_of(node, rank)
    found = [graph.rows(value) for value in inputs]
    held = [rows for rows in found if rows is not None]
    if held[0].axis != axis:
        for value, rows in zip(inputs, found, strict=True):
            if rows is None and graph.lengths(value)[held[0].axis] is not None:
                raise UnprovedError("joins a block of a fixed number of rows to the images")
        return same(node, broadcast_rows(graph, inputs, rank))
    if None in found or any(rows.axis != axis or rows.inner != held[0].inner for rows in held):
        raise MixesError("joins other rows to the batch")
    if any(rows.outer.symbols for rows in held):
        raise UnprovedError("joins batches of open lengths")
    return same(node, Rows(axis, Product(sum(rows.outer.number for rows in held)), held[0].inner))


@count_rule("Concat")
def count_concat(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Concat that joins lengths into a shape."""
    parts = [graph.elements(value) for value in node.inputs]
    if any(part is None for part in parts):
        return same(node, Count(varies_beside(graph, node, None)))
    return same(node, count_of_lengths(graph, tuple(each for part in parts if part is not None for each in part)))


@batch_rule("Split")
def batch_split(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Split along another axis than the images', or of joined batches into whole ones."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    if axis_of(node, rank, 0) != rows.axis:
        return same(node, rows)
    outer = rows.outer.over(Product(len(node.outputs)))
    if input_of(node, 1) is not None or outer is None:
        raise MixesError("cuts the batch apart")
    return same(node, Rows(rows.axis, outer, rows.inner))


@batch_rule("Slice")
def batch_slice(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Slice, which must take all of the images' axis."""
    rows, rank = graph.rows(node.inputs[0]), graph.rank(node.inputs[0])
    if rows is None:
        raise UnprovedError("where it cuts depends on the images")
    axes = listed_axes(node, 3, rank)
    if axes is None:
        axes = list(range(graph.rank(node.inputs[0])))[: slice_count(graph, node)]
    if rows.axis in axes and not takes_all(graph, node, axes.index(rows.axis), rows):
        raise MixesError("takes images by their place in the batch")
    others = [index for index, axis in enumerate(axes) if axis != rows.axis]
    for which in (1, 2, 4):
        graph.refuse_varying(input_of(node, which), others, "where it cuts")
    return same(node, rows)


def slice_count(graph: BatchGraph, node: ir.Node) -> int:
    """Returns how many axes a Slice cuts."""
    length = graph.lengths(node.inputs[1])[0]
    if length is None or length.symbols:
        raise UnprovedError("the axes that it cuts are not known")
    return length.number


def takes_all(graph: BatchGraph, node: ir.Node, index: int, rows: Rows) -> bool:
    """Tells whether a Slice takes all of the images' axis, forwards."""
    starts, ends = graph.elements(node.inputs[1]), graph.elements(node.inputs[2])
    steps = (ONE,) if input_of(node, 4) is None else graph.elements(node.inputs[4])
    if (
        starts is None
        or ends is None
        or steps is None
        or starts[index] != Product(0)
        or steps[index % len(steps)] != ONE
    ):
        return False
    end = ends[index]
    whole = multiply_lengths([rows.outer, graph.batch, rows.inner])
    return end is not None and (end == whole or (not end.symbols and end.number >= TO_THE_END))


@count_rule("Slice")
def count_slice(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Slice that takes some of the lengths of a shape."""
    elements, cut = graph.elements(node.inputs[0]), [constant_of(value) for value in node.inputs[1:]]
    if elements is None or any(each is None for each in cut) or (len(cut) > 3 and cut[3] is None):
        return same(node, Count(varies_beside(graph, node, None)))
    numbers = [int(np.asarray(each).reshape(-1)[0]) for each in cut]
    step = numbers[3] if len(numbers) > 3 else 1
    return same(node, count_of_lengths(graph, elements[numbers[0] : numbers[1] : step]))


@batch_rule("Pad")
def batch_pad(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Pad, which must add nothing along the images' axis."""
    rows, rank = graph.rows_of(node), graph.rank(node.inputs[0])
    axes = listed_axes(node, 3, rank)
    axes = list(range(rank)) if axes is None else axes
    if rows.axis not in axes:
        return same(node, rows)
    pads, index = graph.elements(node.inputs[1]), axes.index(rows.axis)
    if pads is None:
        raise UnprovedError("how much it pads the batch is computed")
    if pads[index] != Product(0) or pads[index + len(axes)] != Product(0):
        raise MixesError("pads the batch")
    return same(node, rows)


@batch_rule("Shape")
def batch_shape(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Shape, which gives the lengths of all axes, or of some that follow each other."""
    lengths = graph.lengths(node.inputs[0])
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return same(node, count_of_lengths(graph, tuple(lengths[start:end])))


@batch_rule("Size")
def batch_size(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Size, which gives the number of elements."""
    return same(node, count_of_lengths(graph, (multiply_lengths(graph.lengths(node.inputs[0])),)))
