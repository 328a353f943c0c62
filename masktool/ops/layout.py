"""Operators that move, cut, join or pad values: the mask follows its axes.

* Concatenation over channels: the larger mask (union), ``m' = max(m₁, m₂, …)``; what one map lacks there is 0.
* Slice, Pad and Concat along height or width do the same to the mask. Places that a constant Pad adds are known, not
  missing.
* Reshape, Transpose, Squeeze, Unsqueeze, Split, Gather: height and width must survive as axes of their own (channel
  shuffle, layouts).
* Flatten, and a Reshape to (N, features): ``y = x · m``; the mask is spent.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.graph import (
    Masked,
    MaskedGraph,
    constant_of,
    dtype_of,
    input_at,
    normalised_axes,
    rank_of,
    sizes_of,
)
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule

MASK_AXES = (2, 3)
"""Axes of the mask itself, (M, 1, h, w)."""


def state_of_input(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of the node's first input, the only one that may depend on the image."""
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    return state


@mask_rule("Concat")
def mask_concat(graph: MaskedGraph, node: ir.Node) -> None:
    """Joins maps side by side."""
    states = [state for value in node.inputs if (state := graph.state(value)) is not None]
    first = states[0]
    axis = normalised_axes([node.attributes["axis"].as_int()], rank_of(node.outputs[0]))[0]
    if any(state.axes != first.axes for state in states):
        raise RuleError("it joins maps of different layouts")
    if axis == 0 or len(states) < len(node.inputs):
        raise RuleError("it joins a map with something that has no place in the image" if axis else "it joins batches")
    masks = list(dict.fromkeys(state.mask for state in states))
    if axis in first.axes:
        mask_axis = MASK_AXES[first.axes.index(axis)]
        mask = graph.emit("Concat", *(state.mask for state in states), axis=mask_axis)
    else:
        mask = masks[0] if len(masks) == 1 else graph.emit("Max", *masks)
        for index, state in enumerate(states):
            if state.mask is not mask:
                node.replace_input_with(index, graph.zeroed(input_at(node, index)))
    all_zeroed = all(state.zeroed or state.mask is not mask for state in states)
    graph.set_state(node.outputs[0], Masked(mask, first.axes, zeroed=all_zeroed and axis not in first.axes))


@mask_rule("Split")
def mask_split(graph: MaskedGraph, node: ir.Node) -> None:
    """Cuts channels apart: every part keeps the mask."""
    state = state_of_input(graph, node)
    axis = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))[0]
    if axis in (0, *state.axes):
        raise RuleError(f"it splits along axis {axis}, not along channels")
    for output in node.outputs:
        graph.set_state(output, state)


@mask_rule("Gather")
def mask_gather(graph: MaskedGraph, node: ir.Node) -> None:
    """Picks channels: the mask stays."""
    state = state_of_input(graph, node)
    indices = constant_of(node, 1, "indices")
    assert indices is not None
    axis = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))[0]
    if axis in (0, *state.axes):
        raise RuleError(f"it gathers along axis {axis}, not along channels")
    height, width = (place + (indices.ndim - 1 if place > axis else 0) for place in state.axes)
    graph.set_state(node.outputs[0], state.replace(axes=(height, width)))


@mask_rule("Slice")
def mask_slice(graph: MaskedGraph, node: ir.Node) -> None:
    """Slices the mask along with height and width."""
    state = state_of_input(graph, node)
    starts, ends = constant_of(node, 1, "starts"), constant_of(node, 2, "ends")
    axes, steps = constant_of(node, 3, "axes"), constant_of(node, 4, "steps")
    assert starts is not None
    assert ends is not None
    rank = rank_of(input_at(node, 0))
    along = normalised_axes(range(len(starts)) if axes is None else axes.tolist(), rank)
    if 0 in along:
        raise RuleError("it slices the batch")
    chosen = [index for index, axis in enumerate(along) if axis in state.axes]
    mask = state.mask
    if chosen:
        mask_axes = [MASK_AXES[state.axes.index(along[index])] for index in chosen]
        strides = np.ones(len(starts), np.int64) if steps is None else steps
        operands = (starts[chosen], ends[chosen], np.array(mask_axes), strides[chosen])
        mask = graph.emit("Slice", mask, *(graph.constant(operand, ir.DataType.INT64) for operand in operands))
    graph.set_state(node.outputs[0], state.replace(mask=mask))


@mask_rule("Pad")
def mask_pad(graph: MaskedGraph, node: ir.Node) -> None:
    """Pads the mask along with height and width; what a constant adds there is known."""
    state = state_of_input(graph, node)
    value = input_at(node, 0)
    mode = node.attributes.get_string("mode", "constant")
    rank = rank_of(value)
    pads, axes = constant_of(node, 1, "pads"), constant_of(node, 3, "axes")
    assert pads is not None
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    along = list(range(rank)) if axes is None else normalised_axes(axes.tolist(), rank)
    begins[along], ends[along] = np.split(pads, 2)
    if begins[0] or ends[0]:
        raise RuleError("it pads the batch")
    height, width = state.axes
    mask = state.mask
    if any((begins[height], begins[width], ends[height], ends[width])):
        mask_pads = [0, 0, begins[height], begins[width], 0, 0, ends[height], ends[width]]
        operands = [graph.constant(mask_pads, ir.DataType.INT64)]
        if mode == "constant":
            operands.append(graph.constant(1, dtype_of(mask)))
        mask = graph.emit("Pad", mask, *operands, mode=mode)
    padding = constant_of(node, 2, "the constant")
    adds_zero = mode != "constant" or padding is None or not padding.any()
    graph.set_state(node.outputs[0], state.replace(mask=mask, zeroed=state.zeroed and adds_zero))


@mask_rule("Transpose")
def mask_transpose(graph: MaskedGraph, node: ir.Node) -> None:
    """Lets height and width follow the permutation."""
    state = state_of_input(graph, node)
    perm = node.attributes.get_ints("perm") or list(reversed(range(rank_of(input_at(node, 0)))))
    if perm[0] != 0:
        raise RuleError(f"it moves the batch: perm {perm}")
    height, width = perm.index(state.axes[0]), perm.index(state.axes[1])
    mask = state.mask if height < width else graph.emit("Transpose", state.mask, perm=[0, 1, 3, 2])
    graph.set_state(node.outputs[0], state.replace(mask=mask, axes=(min(height, width), max(height, width))))


@mask_rule("Unsqueeze", "Squeeze", "Reshape")
def mask_reshape(graph: MaskedGraph, node: ir.Node) -> None:
    """Finds height and width in the new shape; a shape of (N, features) spends the mask."""
    state = state_of_input(graph, node)
    value, output = input_at(node, 0), node.outputs[0]
    if rank_of(output) == 2 and rank_of(value) > 2:
        spend_mask(graph, node)
        return
    graph.set_state(output, state.replace(axes=axes_after_reshape(sizes_of(value), sizes_of(output), state.axes)))


@mask_rule("Flatten")
def mask_flatten(graph: MaskedGraph, node: ir.Node) -> None:
    """Multiplies with the mask, which is then spent."""
    axis = node.attributes.get_int("axis", 1)
    if normalised_axes([axis], rank_of(input_at(node, 0)))[0] != 1:
        raise RuleError(f"it flattens from axis {axis}, not into (N, features)")
    spend_mask(graph, node)


def spend_mask(graph: MaskedGraph, node: ir.Node) -> None:
    """Multiplies the node's input with its mask; the output needs none."""
    node.replace_input_with(0, graph.weighted(input_at(node, 0)))


def axes_after_reshape(
    before: Sequence[int | None], after: Sequence[int | None], axes: tuple[int, int]
) -> tuple[int, int]:
    """Returns where height and width stand in the new shape.

    Both shapes are cut into the smallest blocks of equal size; an axis of the image must make up a block by itself.

    Raises:
        RuleError: height or width is merged with another axis, or cut, or the shapes are not known behind the batch.
    """
    unknown = None in before[1:] or None in after[1:]
    if unknown or np.prod(np.array(before[1:], int)) != np.prod(np.array(after[1:], int)):
        raise RuleError(
            f"it reshapes {list(before)} to {list(after)}: expected known sizes and the batch left in place"
        )
    found: dict[int, int] = {}
    i = j = 1
    while i < len(before) and j < len(after):
        start_i, start_j, size_i, size_j = i, j, before[i] or 0, after[j] or 0
        if size_i != size_j and 1 in (size_i, size_j):
            i, j = (i + 1, j) if size_i == 1 else (i, j + 1)
            continue
        while size_i != size_j:
            if size_i < size_j:
                i += 1
                size_i *= before[i] or 0
            else:
                j += 1
                size_j *= after[j] or 0
        if (start_i, start_j) == (i, j):
            found[i] = j
        i, j = i + 1, j + 1
    if axes[0] not in found or axes[1] not in found:
        raise RuleError(
            f"it reshapes {list(before)} to {list(after)}: "
            f"expected height and width (axes {list(axes)}) to stay axes of their own"
        )
    return found[axes[0]], found[axes[1]]


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
    "Reshape",
    Sample(
        "channel shuffle",
        "a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) c = Reshape (b, t) "
        "y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"w": (3, 4, 3, 3)},
        {"s": (-1, 2, 2, 9, 11), "t": (-1, 4, 9, 11)},
    ),
    Sample("features", "f = Reshape (x, s) y = Gemm (f, w)", {"w": (396, 5)}, {"s": (-1, 396)}),
)
add_samples("Unsqueeze", Sample("new axis", "y = Unsqueeze (x, a)", constants={"a": (1,)}))
add_samples(
    "Squeeze",
    Sample("an axis and back", "u = Unsqueeze (x, a) r = Sigmoid (u) y = Squeeze (r, a)", constants={"a": (1,)}),
)
add_samples("Flatten", Sample("features", "f = Flatten (x) y = Gemm (f, w)", {"w": (396, 5)}))
