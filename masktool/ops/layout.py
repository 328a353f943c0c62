"""Operators that move, cut, join or repeat values: the mask follows its axes.

* Concatenation over channels: the larger mask (union), ``m' = max(m₁, m₂, …)``; what one map lacks there is 0. A part
  that does not depend on the image is missing where the maps beside it are.
* Concatenation along places: the masks, side by side; a part that does not depend on the image (a class token) is kept.
* Slice, Split, Gather, Pad, Tile along places do the same to the mask. Places that a constant Pad adds are kept.
* Transpose and Expand do the same to the mask.
* What picks a single place loses the mask: ``y = x · [m > 0]`` there.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import constant_of, dtype_of, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.graph import Masked, MaskedGraph, share_batch, state_of_input
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule


@mask_rule("Concat")
def mask_concat(graph: MaskedGraph, node: ir.Node) -> None:
    """Joins maps side by side."""
    values = [input_at(node, index) for index in range(len(node.inputs))]
    states = [state for value in values if (state := graph.state(value)) is not None]
    first = states[0]
    axis = normalised_axes([node.attributes["axis"].as_int()], rank_of(node.outputs[0]))[0]
    if not share_batch(states):
        raise RuleError("it joins values whose batches lie on different axes")
    if axis == first.batch:
        raise RuleError("it joins batches")
    if any(axis in state.axes for state in states):
        graph.set_state(node.outputs[0], concat_places(graph, values, states, axis))
    else:
        graph.set_state(node.outputs[0], concat_channels(graph, node, states))


def concat_channels(graph: MaskedGraph, node: ir.Node, states: Sequence[Masked]) -> Masked:
    """Returns the union of the masks; sets to 0 what a map lacks there."""
    masks = list(dict.fromkeys(state.mask for state in states))
    mask = masks[0] if len(masks) == 1 else graph.emit("Max", *masks)
    axes = tuple(sorted({axis for state in states for axis in state.axes}))
    all_zeroed = len(states) == len(node.inputs)
    for index, value in enumerate(node.inputs):
        state = graph.state(value)
        if state is not None and state.mask is not mask:
            node.replace_input_with(index, graph.zeroed(input_at(node, index)))
        elif state is not None:
            all_zeroed = all_zeroed and state.zeroed
    return states[0].recut(mask, axes, axes=axes, zeroed=all_zeroed)


def concat_places(graph: MaskedGraph, values: Sequence[ir.Value], states: Sequence[Masked], axis: int) -> Masked:
    """Returns the masks side by side along ``axis``, all of them varying along the same axes."""
    axes = tuple(sorted({axis, *(other for state in states for other in state.axes)}))
    first = next(value for value in values if graph.state(value) is not None)
    pieces = []
    for value in values:
        if graph.state(value) is None:  # kept throughout: ones, in the batch of a mask
            pieces.append(ones_beside(graph, value, first, axis, axes))
        else:
            pieces.append(graph.full_along(value, axes))
    mask = graph.emit("Concat", *pieces, axis=axis)
    return states[0].recut(mask, axes, axes=axes, zeroed=False)


def ones_beside(graph: MaskedGraph, value: ir.Value, masked: ir.Value, axis: int, axes: Sequence[int]) -> ir.Value:
    """Returns a mask of ones for ``value``, in the shape of another value's mask but for its length along ``axis``."""
    mask = graph.full_along(masked, [other for other in axes if other != axis])
    one_place = graph.emit("ReduceMax", mask, graph.constant([axis], ir.DataType.INT64))
    length = sizes_of(value)[axis]
    if length is None:
        raise RuleError(f"the length of {value.name!r} along axis {axis} is not fixed")
    repeats = [length if other == axis else 1 for other in range(rank_of(value))]
    return graph.emit("Tile", graph.ones_like(one_place), graph.constant(repeats, ir.DataType.INT64))


@mask_rule("Split")
def mask_split(graph: MaskedGraph, node: ir.Node) -> None:
    """Cuts the mask along with places; every part of the channels keeps it."""
    state = state_of_input(graph, node)
    axis = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))[0]
    if axis == state.batch:
        raise RuleError("it splits the batch")
    if axis not in state.axes:
        for output in node.outputs:
            graph.set_state(output, state)
        return
    start = 0
    for output in node.outputs:
        length = sizes_of(output)[axis]
        if length is None:
            raise RuleError("the lengths of its parts are not fixed")
        operands = ([start], [start + length], [axis])
        mask = graph.emit("Slice", state.mask, *(graph.constant(operand, ir.DataType.INT64) for operand in operands))
        graph.set_state(output, state.recut(mask, [axis]))
        start += length


@mask_rule("Gather")
def mask_gather(graph: MaskedGraph, node: ir.Node) -> None:
    """Picks channels, and the mask stays; or places, along with their mask."""
    state = state_of_input(graph, node)
    axis = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))[0]
    if axis == state.batch:
        raise RuleError("it gathers along the batch")
    indices = constant_of(node, 1, "the index")
    assert indices is not None
    added = indices.ndim - 1
    if axis in state.axes:
        mask = graph.emit("Gather", state.mask, input_at(node, 1), axis=axis)
    else:
        zeros = graph.constant(np.zeros_like(indices), ir.DataType.INT64)
        mask = graph.emit("Gather", state.mask, zeros, axis=axis) if added else state.mask
    rest = tuple(other for other in state.axes if other != axis)
    new_state = state.recut(mask, [axis], axes=rest).moved(lambda other: other + (added if other > axis else 0))
    gathered = tuple(range(axis, axis + indices.ndim)) if axis in state.axes else ()
    set_or_spend(graph, node, new_state.replace(axes=tuple(sorted(new_state.axes + gathered))))


def set_or_spend(graph: MaskedGraph, node: ir.Node, state: Masked) -> None:
    """Gives the node's output its state; sets it to 0 where the single place that it picked is missing."""
    output = node.outputs[0]
    if state.axes:
        graph.set_state(output, state)
    else:
        kept = graph.as_type(graph.emit("Sign", state.mask), dtype_of(output))
        graph.emit_after(output, "Mul", output, kept)


@mask_rule("Slice")
def mask_slice(graph: MaskedGraph, node: ir.Node) -> None:
    """Slices the mask along with the places."""
    state = state_of_input(graph, node)
    starts, ends = constant_of(node, 1, "its start"), constant_of(node, 2, "its end")
    axes, steps = constant_of(node, 3, "the list of axes"), constant_of(node, 4, "its step")
    assert starts is not None
    assert ends is not None
    rank = rank_of(input_at(node, 0))
    along = normalised_axes(range(len(starts)) if axes is None else axes.tolist(), rank)
    if state.batch in along:
        raise RuleError("it slices the batch")
    chosen = [index for index, axis in enumerate(along) if axis in state.axes]
    mask = state.mask
    if chosen:
        strides = np.ones(len(starts), np.int64) if steps is None else steps
        operands = (starts[chosen], ends[chosen], np.array(along)[chosen], strides[chosen])
        mask = graph.emit("Slice", mask, *(graph.constant(operand, ir.DataType.INT64) for operand in operands))
    graph.set_state(node.outputs[0], state.recut(mask, (along[index] for index in chosen)))


@mask_rule("Pad")
def mask_pad(graph: MaskedGraph, node: ir.Node) -> None:
    """Pads the mask along with the places; what a constant adds there is kept."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    mode, rank = node.attributes.get_string("mode", "constant"), rank_of(value)
    pads, axes = constant_of(node, 1, "the number of places to add"), constant_of(node, 3, "the list of axes")
    assert pads is not None
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    along = list(range(rank)) if axes is None else normalised_axes(axes.tolist(), rank)
    begins[along], ends[along] = np.split(pads, 2)
    if begins[state.batch] or ends[state.batch]:
        raise RuleError("it pads the batch")
    mask = state.mask
    places = list(state.axes)
    if begins[places].any() or ends[places].any():
        elsewhere = [axis for axis in range(rank) if axis not in places]
        begins[elsewhere] = ends[elsewhere] = 0
        operands = [graph.constant(np.concatenate([begins, ends]), ir.DataType.INT64)]
        if mode == "constant":
            operands.append(graph.constant(1, dtype_of(mask)))
        mask = graph.emit("Pad", mask, *operands, mode=mode)
    padding = constant_of(node, 2, "the number that it pads with")
    adds_zero = mode != "constant" or padding is None or not padding.any()
    graph.set_state(node.outputs[0], state.recut(mask, state.axes, zeroed=state.zeroed and adds_zero))


@mask_rule("Tile")
def mask_tile(graph: MaskedGraph, node: ir.Node) -> None:
    """Repeats the mask along with the places."""
    state = state_of_input(graph, node)
    repeats = constant_of(node, 1, "the number of repeats")
    assert repeats is not None
    if repeats[state.batch] != 1:
        raise RuleError("it repeats the batch")
    along_places = [int(n) if axis in state.axes else 1 for axis, n in enumerate(repeats)]
    mask = state.mask
    if any(n != 1 for n in along_places):
        mask = graph.emit("Tile", mask, graph.constant(along_places, ir.DataType.INT64))
    graph.set_state(node.outputs[0], state.recut(mask, state.axes))


@mask_rule("Expand")
def mask_expand(graph: MaskedGraph, node: ir.Node) -> None:
    """Broadcasts: the mask does so by itself."""
    state, value, output = state_of_input(graph, node), input_at(node, 0), node.outputs[0]
    rank, shift = rank_of(value), rank_of(output) - rank_of(value)
    mask = graph.moved_mask(state.mask, {axis: axis + shift for axis in range(rank)}, rank, rank + shift)
    single = {axis for axis in state.axes if sizes_of(value)[axis] == 1}
    state = state.replace(axes=tuple(axis for axis in state.axes if axis not in single), mask=mask)
    set_or_spend(graph, node, state.moved(lambda axis: axis + shift))


@mask_rule("Transpose")
def mask_transpose(graph: MaskedGraph, node: ir.Node) -> None:
    """Permutes the axes of the mask."""
    state, rank = state_of_input(graph, node), rank_of(input_at(node, 0))
    perm = list(node.attributes.get_ints("perm") or reversed(range(rank)))
    mask = graph.moved_mask(state.mask, {axis: perm.index(axis) for axis in (state.batch, *state.axes)}, rank, rank)
    graph.set_state(node.outputs[0], state.moved(perm.index, mask=mask))


add_samples(
    "Concat",
    Sample(
        "masks that differ",
        "a = Conv <pads = [1, 1, 1, 1]> (x, v) b = Sigmoid (x) c = Concat <axis = 1> (a, b, x) "
        "y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"v": (3, 4, 3, 3), "w": (3, 11, 3, 3)},
    ),
    Sample("along the width", "y = Concat <axis = 3> (x, x)"),
)
add_samples(
    "Split",
    Sample(
        "channels",
        "a, b = Split <axis = 1, num_outputs = 2> (x) y = Conv <pads = [1, 1, 1, 1]> (b, w)",
        {"w": (3, 2, 3, 3)},
    ),
)
add_samples(
    "Gather",
    Sample(
        "one channel, and its axis back",
        "i = Constant <value_int = 2> () g = Gather <axis = 1> (x, i) u = Unsqueeze (g, a) "
        "y = Conv <pads = [1, 1, 1, 1]> (u, w)",
        {"w": (3, 1, 3, 3)},
        {"a": (1,)},
    ),
    Sample("several channels", "y = Gather <axis = 1> (x, i)", constants={"i": (2, 0)}),
)
add_samples(
    "Slice",
    Sample(
        "strided, as in a shortcut",
        "y = Slice (x, s, e, a, t)",
        constants={"s": (0, 0), "e": (9, 11), "a": (2, 3), "t": (2, 2)},
    ),
    Sample("channels", "y = Slice (x, s, e, a)", constants={"s": (1,), "e": (3,), "a": (1,)}),
)
add_samples(
    "Pad",
    Sample("channels, as in a shortcut", "y = Pad (x, p)", constants={"p": (0, 2, 0, 0, 0, 2, 0, 0)}),
    Sample("reflect", 'y = Pad <mode = "reflect"> (x, p)', constants={"p": (0, 0, 1, 1, 0, 0, 1, 1)}),
    Sample(
        "zeros before a pool",
        "r = Relu (x) h = Pad (r, p) y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (h)",
        constants={"p": (0, 0, 1, 1, 0, 0, 1, 1)},
    ),
)
add_samples(
    "Transpose",
    Sample(
        "channels last and back",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) r = Sigmoid (t) y = Transpose <perm = [0, 3, 1, 2]> (r)",
    ),
    Sample("height and width swapped", "t = Transpose <perm = [0, 1, 3, 2]> (x) y = Conv (t, w)", {"w": (3, 4, 1, 1)}),
)
add_samples(
    "Concat",
    Sample(
        "with channels that do not depend on the image",
        "h = Conv <pads = [1, 1, 1, 1]> (x, v) s = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (s, d) "
        "e = Expand (k, t) c = Concat <axis = 1> (h, e) y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"v": (3, 4, 3, 3), "k": (1, 2, 9, 11), "w": (3, 5, 3, 3)},
        {"d": (2, 9, 11)},
    ),
    Sample(
        "a row that does not depend on the image",
        "s = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (s, d) e = Expand (k, t) "
        "c = Concat <axis = 2> (e, x) y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"k": (1, 4, 1, 11), "w": (3, 4, 3, 3)},
        {"d": (4, 1, 11)},
    ),
)
add_samples(
    "Split",
    Sample("the width", "a, b = Split <axis = 3> (x, s) y = Concat <axis = 3> (b, a)", constants={"s": (4, 7)}),
)
add_samples(
    "Gather",
    Sample("rows, in another order", "y = Gather <axis = 2> (x, i)", constants={"i": (8, 0, 3, 3)}),
    Sample(
        "a single place",
        "r = Constant <value_int = 1> () a = Gather <axis = 2> (x, r) y = Gather <axis = 2> (a, r)",
    ),
)
add_samples("Tile", Sample("rows and channels", "y = Tile (x, r)", constants={"r": (1, 2, 3, 1)}))
add_samples(
    "Expand",
    Sample(
        "a new axis",
        "u = Unsqueeze (x, a) e = Expand (u, s) y = ReduceMax <keepdims = 0> (e, b)",
        constants={"a": (1,), "s": (1, 3, 1, 1, 1), "b": (1,)},
    ),
)
