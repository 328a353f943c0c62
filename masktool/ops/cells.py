"""The cell rule of a Slice with a step s, which picks every s-th place along some axes.

``y = slice(fill(x, m))``, ``m' = max of m over each cell``: what a 1 × 1 convolution of the same stride does
(:mod:`masktool.ops.conv`). Cells begin at the multiples of s, so that slices of one map that begin at different places
have the same cells: those of a Focus stem or of a Swin transformer's patch merging, whose results are joined again, and
those of a wavelet, which adds them. A Gather that does the same is a Slice in the canonical graph, and slices along
different axes, one behind the other, are one.

Source: the reasoning for convolutions; Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646, take the mask
of the place that is picked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from masktool.ops.builder import input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.fill import MOST_AXES, fill
from masktool.ops.graph import Masked, MaskedGraph
from masktool.ops.sliding import Window
from masktool.ops.windows import image_state, pool_mask

BEYOND = 2**31 - 1
"""An end beyond every axis, as exporters write it, or more."""


@dataclasses.dataclass(frozen=True)
class AxisCells:
    """The cells of the places that are picked along an axis.

    Attributes:
        step: length of a cell.
        begin: first place of the first cell.
        end: end of the last cell, perhaps beyond the axis.
        phase: where in its cell each picked place lies.
        reversed: whether the places are picked from the last to the first.
    """

    step: int
    begin: int
    end: int
    phase: int
    reversed: bool


def pick_with_cells(graph: MaskedGraph, node: ir.Node, picked: Mapping[int, slice], state: Masked) -> Masked:
    """Fills the input of a node that picks places along axes, and returns the state of its cells.

    Args:
        graph: the graph under rewriting.
        node: the node that picks.
        picked: the places that it picks, by axis; each a slice with a step of 2 or more, or -2 or less.
        state: the state of the node's first input.

    Returns:
        The input's state with a mask of one place per cell along those axes, in the order in which places are picked.

    Raises:
        RuleError: lengths that the cells depend on are not fixed, or the input is no map.
    """
    value = input_at(node, 0)
    cells = {axis: cells_of(sizes_of(value)[axis], places) for axis, places in picked.items()}
    rounds = max(axis_cells.step for axis_cells in cells.values()) - 1
    if state.is_image and 3 <= rank_of(value) <= 2 + MOST_AXES:
        state = image_state(graph, node)
        node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, rounds))
        mask = pool_cells(graph, state.mask, [cells.get(axis) for axis in range(2, rank_of(value))])
        return state.replace(mask=mask, zeroed=False)
    places = [axis for axis in state.axes if axis != state.batch]
    rank, moves = rank_of(value), {state.batch: 0, **{axis: 2 + index for index, axis in enumerate(places)}}
    mask = graph.moved_mask(state.mask, moves, rank, 2 + len(places))
    node.replace_input_with(0, fill_in_any_layout(graph, value, mask, state, rounds))
    pooled = pool_cells(graph, mask, [cells.get(axis) for axis in places])
    mask = graph.moved_mask(pooled, {new: old for old, new in moves.items()}, 2 + len(places), rank)
    return state.replace(mask=mask, zeroed=False)


def cells_of(length: int | None, places: slice) -> AxisCells:
    """Returns the cells of the places that are picked along an axis.

    Args:
        length: the axis's length; None where it is open.
        places: the places, with a start and an end as Slice counts them.
    """
    step = abs(places.step)
    if length is not None:
        found = range(length)[places]
        if not found:
            raise RuleError("it picks no place")
        low, high = min(found), max(found)
        return AxisCells(step, low - low % step, high - high % step + step, low % step, places.step < 0)
    if places.step < 0 or places.start < 0 or places.stop < 0:
        raise RuleError("which places it picks depends on a length that is not fixed")
    begin = places.start - places.start % step
    whole = math.ceil(max(places.stop - places.start, 0) / step) * step
    end = places.stop if places.stop >= BEYOND else begin + whole
    return AxisCells(step, begin, end, places.start % step, False)


def pool_cells(graph: MaskedGraph, mask: ir.Value, cells: Sequence[AxisCells | None]) -> ir.Value:
    """Emits the largest value of a mask (M, 1, ...) in each cell.

    Args:
        graph: the graph under rewriting.
        mask: the mask.
        cells: the cells along each axis behind the second; None where all its places stay.
    """
    axes = [(axis, own) for axis, own in enumerate(cells, start=2) if own is not None]
    mask = slice_mask(graph, mask, [(axis, own.begin, own.end, 1) for axis, own in axes if is_cut(mask, axis, own)])
    steps = tuple(1 if own is None else own.step for own in cells)
    ends = tuple(0 if own is None else own.step - 1 - own.phase for own in cells)
    ones = (1,) * len(cells)
    pooled = pool_mask(graph, mask, Window(steps, steps, (0,) * len(cells) + ends, ones, 0))
    return slice_mask(graph, pooled, [(axis, -1, -(2**63), -1) for axis, own in axes if own.reversed])


def is_cut(mask: ir.Value, axis: int, cells: AxisCells) -> bool:
    """Whether cells do not hold all places of a mask's axis."""
    length = None if mask.shape is None else sizes_of(mask)[axis]
    reaches_end = cells.end >= BEYOND or (length is not None and cells.end >= length)
    return cells.begin > 0 or not reaches_end


def slice_mask(graph: MaskedGraph, mask: ir.Value, cuts: Sequence[tuple[int, int, int, int]]) -> ir.Value:
    """Emits a Slice of a mask: (axis, start, end, step) of each axis that is cut."""
    if not cuts:
        return mask
    axes, starts, ends, steps = zip(*cuts, strict=True)
    return graph.emit("Slice", mask, *(graph.constant(each, ir.DataType.INT64) for each in (starts, ends, axes, steps)))


def fill_in_any_layout(graph: MaskedGraph, value: ir.Value, mask: ir.Value, state: Masked, rounds: int) -> ir.Value:
    """Returns a value filled over its places, wherever these and its channels lie.

    Args:
        graph: the graph under rewriting.
        value: the value.
        mask: its mask as (M, 1, ...) with its places behind.
        state: its state.
        rounds: the number of rounds.
    """
    places = [axis for axis in state.axes if axis != state.batch]
    if len(places) > MOST_AXES:
        raise RuleError(
            f"it picks every so-many-th place of a map of {len(places)} axes; there is a fill for {MOST_AXES}"
        )
    others = [axis for axis in range(rank_of(value)) if axis not in (state.batch, *places)]
    order, sizes = [state.batch, *others, *places], sizes_of(value)
    laid = value
    if order != sorted(order):
        laid = graph.emit("Transpose", value, perm=order)
        laid.shape = ir.Shape([None if value.shape is None else value.shape[axis] for axis in order])
    lengths = [sizes[axis] for axis in order[1:]]
    if len(others) != 1:
        if None in lengths:
            raise RuleError("its lengths are not fixed")
        channels = math.prod(sizes[axis] or 1 for axis in others)
        shape = [channels, *(sizes[axis] for axis in places)]
        batch = None if value.shape is None else value.shape[state.batch]
        laid = graph.emit("Reshape", laid, graph.constant([-1, *shape], ir.DataType.INT64))
        laid.shape = ir.Shape([batch, *shape])
    filled = fill(graph, laid, mask, rounds)
    if len(others) != 1:
        filled = graph.emit("Reshape", filled, graph.constant([-1, *lengths], ir.DataType.INT64))
    if order != sorted(order):
        filled = graph.emit("Transpose", filled, perm=[order.index(axis) for axis in range(len(order))])
    filled.shape = value.shape
    return filled
