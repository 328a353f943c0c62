"""Operators that join values side by side, or cut them up.

* Concatenation over channels: the larger mask (union), ``m' = max(m₁, m₂, …)``; what one map lacks there is 0. A part
  that does not depend on the image is missing where the maps beside it are.
* Concatenation along places: the masks, side by side; a part that does not depend on the image (a class token) is kept.
* Split along places does the same to the mask.

Gradients: each is cut up where values were joined, and joined where they were cut up.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.builder import input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, share_batch, state_of_input
from masktool.ops.samples import Sample, add_samples


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
    """Returns the union of the masks; sets every map to 0 where the union has a place that the map lacks."""
    mask = graph.largest_mask(states)
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
    return graph.emit("Tile", graph.filled_like(one_place, 1), graph.constant(repeats, ir.DataType.INT64))


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


@gradient_rule("Concat")
def vjp_concat(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Cuts the gradient of each part out."""
    gradient = first_gradient(gradients)
    axis = normalised_axes([node.attributes["axis"].as_int()], rank_of(node.outputs[0]))[0]
    found: list[ir.Value | None] = []
    start = 0
    for index in range(len(node.inputs)):
        value = input_at(node, index)
        length = sizes_of(value)[axis]
        if length is None:
            raise RuleError(f"the length of {value.name!r} along axis {axis} is not fixed")
        part = None
        if graph.needs(value):
            part = graph.emit("Slice", gradient, graph.ints(start), graph.ints(start + length), graph.ints(axis))
        found.append(part)
        start += length
    return found


@gradient_rule("Split")
def vjp_split(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Joins the gradients of the parts; that of a part that nothing depends on is 0."""
    parts = [
        graph.zeros_like(output) if gradient is None else gradient
        for output, gradient in zip(node.outputs, gradients, strict=True)
    ]
    return [graph.emit("Concat", *parts, axis=node.attributes.get_int("axis", 0))]


add_samples(
    "Concat",
    Sample(
        "masks that differ",
        "a = Conv <pads = [1, 1, 1, 1]> (x, v) b = Sigmoid (x) c = Concat <axis = 1> (a, b, x) "
        "y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"v": (3, 4, 3, 3), "w": (3, 11, 3, 3)},
    ),
    Sample("along the width", "y = Concat <axis = 3> (x, x)"),
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
    Sample(
        "channels of windows that are merged into the batch",
        "a = Reshape (x, cut) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) c = Reshape (b, windows) "
        "d = Conv <pads = [1, 1, 1, 1]> (c, w) e = Concat <axis = 1> (c, d) f = Reshape (e, uncut) "
        "g = Transpose <perm = [0, 2, 1, 3, 4]> (f) y = Reshape (g, whole)",
        {"w": (4, 4, 3, 3)},
        {"cut": (-1, 4, 2, 4, 12), "windows": (-1, 4, 4, 12), "uncut": (-1, 2, 8, 4, 12), "whole": (-1, 8, 8, 12)},
        size=(8, 12),
    ),
)
add_samples(
    "Split",
    Sample(
        "channels",
        "a, b = Split <axis = 1, num_outputs = 2> (x) y = Conv <pads = [1, 1, 1, 1]> (b, w)",
        {"w": (3, 2, 3, 3)},
    ),
    Sample("the width", "a, b = Split <axis = 3> (x, s) y = Concat <axis = 3> (b, a)", constants={"s": (4, 7)}),
)
