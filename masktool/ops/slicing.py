"""Operators that pick places, or add some: the mask follows.

* Slice, Gather and Pad along places do the same to the mask. Places that a constant Pad adds are kept.
* What passes places over, along with a step, keeps them under the ``cell`` rule: :mod:`masktool.ops.cells`.
* What picks a single place loses the mask: ``y = x · [m > 0]`` there.

Gradients go back where the values came from.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import constant_input, dtype_of, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.cells import pick_with_cells, slice_mask
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, refuse_parameters
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, state_of_input
from masktool.ops.layout import lengths_of_axes, set_or_spend
from masktool.ops.samples import Sample, add_samples


@mask_rule("Gather")
def mask_gather(graph: MaskedGraph, node: ir.Node) -> None:
    """Picks channels, and the mask stays; or places, along with their mask."""
    state = state_of_input(graph, node)
    axis = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(input_at(node, 0)))[0]
    if axis == state.batch:
        raise RuleError("it gathers along the batch")
    indices = constant_input(node, 1, "the index")
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


@mask_rule("Slice")
def mask_slice(graph: MaskedGraph, node: ir.Node) -> None:
    """Slices the mask along with the places; under the cell rule a step keeps what it passes over, and fills."""
    state = state_of_input(graph, node)
    starts, ends = constant_input(node, 1, "its start"), constant_input(node, 2, "its end")
    axes, steps = constant_input(node, 3, "the list of axes"), constant_input(node, 4, "its step")
    assert starts is not None
    assert ends is not None
    rank = rank_of(input_at(node, 0))
    along = normalised_axes(range(len(starts)) if axes is None else axes.tolist(), rank)
    if state.batch in along:
        raise RuleError("it slices the batch")
    strides = np.ones(len(starts), np.int64) if steps is None else steps
    picked = {
        axis: slice(*map(int, places))
        for axis, *places in zip(along, starts, ends, strides, strict=True)
        if axis in state.axes
    }
    celled = narrow_picks(graph, state, picked)
    if celled:
        state = pick_with_cells(graph, node, celled, state)
    left = [(axis, cut.start, cut.stop, cut.step) for axis, cut in picked.items() if axis not in celled]
    graph.set_state(node.outputs[0], state.recut(slice_mask(graph, state.mask, left), picked))


def narrow_picks(graph: MaskedGraph, state: Masked, picked: Mapping[int, slice]) -> dict[int, slice]:
    """Returns those slices of places, by axis, that have cells under the cell rule: whose step passes places over.

    Where other factors lie between the places of an axis, a step picks one of the factors, and no place is passed over.
    """
    if graph.rule != "cell" or state.mixed:
        return {}
    return {axis: places for axis, places in picked.items() if abs(places.step) > 1}


@mask_rule("Pad")
def mask_pad(graph: MaskedGraph, node: ir.Node) -> None:
    """Pads the mask along with the places; what a constant adds there is kept."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    mode, rank = node.attributes.get_string("mode", "constant"), rank_of(value)
    begins, ends = pads_of(node)
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
    padding = constant_input(node, 2, "the number that it pads with")
    adds_zero = mode != "constant" or padding is None or not padding.any()
    graph.set_state(node.outputs[0], state.recut(mask, state.axes, zeroed=state.zeroed and adds_zero))


def pads_of(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many places a Pad adds in front and behind, for every axis."""
    rank = rank_of(input_at(node, 0))
    pads, axes = constant_input(node, 1, "the number of places to add"), constant_input(node, 3, "the list of axes")
    assert pads is not None
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    along = list(range(rank)) if axes is None else normalised_axes(axes.tolist(), rank)
    begins[along], ends[along] = np.split(pads, 2)
    return begins, ends


@gradient_rule("Slice")
def vjp_slice(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Puts zeros in the places that were left out: between those that were chosen, then around them."""
    gradient, value = first_gradient(gradients), input_at(node, 0)
    lengths, rank = lengths_of_axes(node.outputs[0]), rank_of(value)
    begins, ends = [0] * rank, [0] * rank
    for axis, chosen in chosen_places(node):
        size = sizes_of(value)[axis]
        if size is None:
            raise RuleError(f"it slices {value.name!r} along an axis whose length is not fixed")
        places, step = range(size)[chosen], abs(chosen.step)
        if not places:
            return []
        if chosen.step < 0:
            operands = (graph.ints(-1), graph.ints(-len(places) - 1), graph.ints(axis), graph.ints(-1))
            gradient = graph.emit("Slice", gradient, *operands)
        if step > 1:
            lengths[axis] *= step
            gradient = spread_apart(graph, gradient, axis, step, lengths)
        begins[axis] = min(places)
        ends[axis] = size - begins[axis] - len(places) * step  # below 0 where zeros hang over
    if any(begins) or any(ends):
        gradient = graph.emit("Pad", gradient, graph.ints(*begins, *ends))
    return [gradient]


def chosen_places(node: ir.Node) -> list[tuple[int, slice]]:
    """Returns each axis that a Slice cuts, with the places that it takes along that axis."""
    starts, ends = constant_input(node, 1, "its start"), constant_input(node, 2, "its end")
    axes, steps = constant_input(node, 3, "the list of axes"), constant_input(node, 4, "its step")
    assert starts is not None
    assert ends is not None
    along = range(len(starts)) if axes is None else normalised_axes(axes.tolist(), rank_of(input_at(node, 0)))
    strides = [1] * len(starts) if steps is None else steps.tolist()
    places = (slice(*three) for three in zip(starts.tolist(), ends.tolist(), strides, strict=True))
    return list(zip(along, places, strict=True))


def spread_apart(graph: GradientGraph, value: ir.Value, axis: int, step: int, lengths: Sequence[int]) -> ir.Value:
    """Returns a value with step − 1 zeros behind every place along an axis; ``lengths`` are those of the result."""
    pads = [0] * (2 * len(lengths) + 2)
    pads[len(lengths) + 1 + axis + 1] = step - 1
    apart = graph.emit("Pad", graph.emit("Unsqueeze", value, graph.ints(axis + 1)), graph.ints(*pads))
    return graph.emit("Reshape", apart, graph.ints(*lengths))


@gradient_rule("Gather")
def vjp_gather(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Adds up, at each place, the gradients of all that was picked from it."""
    gradient, value, indices = first_gradient(gradients), input_at(node, 0), input_at(node, 1)
    axis, rank = normalised_axes([node.attributes.get_int("axis", 0)], rank_of(value))[0], rank_of(value)
    if rank_of(indices) != 1:  # as many as there are, in one axis
        lengths = [-1 if length is None else length for length in sizes_of(value)]
        counts = [length for length in sizes_of(indices) if length is not None]
        lengths[axis] = int(np.prod(counts)) if len(counts) == rank_of(indices) else -1
        if lengths.count(-1) > 1:
            raise RuleError("the number of its indices is not fixed")
        gradient = graph.emit("Reshape", gradient, graph.ints(*lengths))
    flat = graph.emit("Reshape", indices, graph.ints(-1))
    return [add_at(graph, graph.zeros_like(value), flat, gradient, axis, rank)]


def add_at(
    graph: GradientGraph, value: ir.Value, indices: ir.Value, updates: ir.Value, axis: int, rank: int
) -> ir.Value:
    """Returns a value with ``updates`` added along one axis, each of its places at the one that ``indices`` names."""
    column = graph.emit("Reshape", indices, graph.ints(*(-1 if other == axis else 1 for other in range(rank))))
    everywhere = graph.emit("Expand", column, graph.emit("Shape", updates))
    return graph.added_at(value, everywhere, updates, axis)


@gradient_rule("Pad")
def vjp_pad(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Cuts the border off; where it was made of copies, their gradients are added to what they are copies of."""
    refuse_parameters(graph, node)
    gradient, value = first_gradient(gradients), input_at(node, 0)
    begins, ends = pads_of(node)
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        return [graph.emit("Pad", gradient, graph.ints(*-begins, *-ends))]
    for axis in np.flatnonzero((begins != 0) | (ends != 0)).tolist():
        size, begin, end = sizes_of(value)[axis], int(begins[axis]), int(ends[axis])
        if size is None or min(begin, end) < 0:
            raise RuleError(f"it pads axis {axis} with copies, and its length is not fixed or is cut")
        copied = np.pad(np.arange(size), (begin, end), mode=mode)  # type: ignore[call-overload]
        border = np.r_[:begin, begin + size : begin + size + end]
        copies = graph.emit("Gather", gradient, graph.ints(*border), axis=axis)
        gradient = graph.emit("Slice", gradient, graph.ints(begin), graph.ints(begin + size), graph.ints(axis))
        gradient = add_at(graph, gradient, graph.ints(*copied[border]), copies, axis, rank_of(value))
    return [gradient]


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
    Sample("rows, in another order", "y = Gather <axis = 2> (x, i)", constants={"i": (8, 0, 3, 3)}),
    Sample(
        "every other row, from the last",
        "g = Gather <axis = 2> (x, i) y = Conv <pads = [1, 1, 1, 1]> (g, w)",
        {"w": (3, 4, 3, 3)},
        {"i": (8, 6, 4, 2, 0)},
        narrow=True,
    ),
    Sample(
        "a single place",
        "r = Constant <value_int = 1> () a = Gather <axis = 2> (x, r) y = Gather <axis = 2> (a, r)",
    ),
)
add_samples(
    "Slice",
    Sample(
        "strided, as in a shortcut",
        "y = Slice (x, s, e, a, t)",
        constants={"s": (0, 0), "e": (9, 11), "a": (2, 3), "t": (2, 2)},
        narrow=True,
    ),
    Sample(
        "every third column backwards, and rows in between",
        "h = Slice (x, s, e, a, t) y = Conv <pads = [1, 1, 1, 1]> (h, w)",
        {"w": (3, 4, 3, 3)},
        {"s": (3, -2), "e": (8, -(2**63)), "a": (2, 3), "t": (2, -3)},
        narrow=True,
    ),
    Sample(
        "four phases side by side, as in a Focus stem",
        "p = Slice (x, s, e, a, t) q = Slice (x, s1, e, a, t) r = Slice (x, s2, e, a, t) u = Slice (x, s3, e, a, t) "
        "c = Concat <axis = 1> (p, q, r, u) y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"w": (3, 16, 3, 3)},
        {"s": (0, 0), "s1": (1, 0), "s2": (0, 1), "s3": (1, 1), "e": (2**31, 2**31), "a": (2, 3), "t": (2, 2)},
        size=(8, 12),
        narrow=True,
    ),
    Sample(
        "channels last",
        "l = Transpose <perm = [0, 2, 3, 1]> (x) h = Slice (l, s, e, a, t) y = Transpose <perm = [0, 3, 1, 2]> (h)",
        constants={"s": (1, 0), "e": (9, 11), "a": (1, 2), "t": (2, 3)},
        narrow=True,
    ),
    Sample(
        "tokens",
        "f = Reshape (x, flat) l = Transpose <perm = [0, 2, 1]> (f) h = Slice (l, s, e, a, t) y = MatMul (h, w)",
        {"w": (4, 3)},
        {"flat": (-1, 4, 99), "s": (2,), "e": (99,), "a": (1,), "t": (4,)},
        narrow=True,
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
