"""Operators that move or repeat values: the mask follows its axes.

Transpose and Expand do the same to the mask, Tile where it repeats places. A single place that is broadcast loses the
mask: ``y = x · [m > 0]``.

Gradients go back where the values came from, and add up where these were repeated.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import constant_input, dtype_of, input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples


def set_or_spend(graph: MaskedGraph, node: ir.Node, state: Masked) -> None:
    """Gives a node's output its mask state; without an axis of places, sets it to 0 where its only place is missing."""
    output = node.outputs[0]
    if state.axes:
        graph.set_state(output, state)
    else:
        kept = graph.as_type(graph.step(state.mask), dtype_of(output))
        graph.emit_after(output, "Mul", output, kept)


@mask_rule("Tile")
def mask_tile(graph: MaskedGraph, node: ir.Node) -> None:
    """Repeats the mask along with the places."""
    state = state_of_input(graph, node)
    repeats = constant_input(node, 1, "the number of repeats")
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
    """Broadcasts the value: the mask does so by itself."""
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


@gradient_rule("Transpose")
def vjp_transpose(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Permutes the axes back."""
    rank = rank_of(input_at(node, 0))
    perm = list(node.attributes.get_ints("perm") or reversed(range(rank)))
    return [graph.emit("Transpose", first_gradient(gradients), perm=[perm.index(axis) for axis in range(rank)])]


@gradient_rule("Expand")
def vjp_expand(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Sums over what was repeated."""
    return [graph.summed_to(input_at(node, 0), first_gradient(gradients), node.outputs[0])]


@gradient_rule("Tile")
def vjp_tile(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Sums over the repeats."""
    repeats = constant_input(node, 1, "the number of repeats")
    assert repeats is not None
    cut: list[int] = []
    repeated: list[int] = []
    for length, times in zip(lengths_of_axes(input_at(node, 0)), repeats.tolist(), strict=True):
        if times != 1:
            repeated.append(len(cut))
            cut.append(times)
        cut.append(length)
    if not repeated:
        return gradients
    parts = graph.emit("Reshape", first_gradient(gradients), graph.ints(*cut))
    return [graph.emit("ReduceSum", parts, graph.ints(*repeated), keepdims=0)]


def lengths_of_axes(value: ir.Value) -> list[int]:
    """Returns the length of every axis of a value, -1 for one that is open.

    Raises:
        RuleError: several axes are open.
    """
    lengths = [-1 if length is None else length for length in sizes_of(value)]
    if lengths.count(-1) > 1:
        raise RuleError(f"several lengths of {value.name!r} are not fixed: {value.shape}")
    return lengths


add_samples(
    "Transpose",
    Sample(
        "channels last and back",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) r = Sigmoid (t) y = Transpose <perm = [0, 3, 1, 2]> (r)",
    ),
    Sample("height and width swapped", "t = Transpose <perm = [0, 1, 3, 2]> (x) y = Conv (t, w)", {"w": (3, 4, 1, 1)}),
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
