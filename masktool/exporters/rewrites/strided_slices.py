"""Brings what picks every so-many-th place into one form: one Slice with a step, along all axes at once.

1. A Gather of evenly spaced places, from the first step to the end of an axis, becomes a Slice.
2. Slices with steps along different axes, one behind the other, as exporters write ``x[:, :, ::2, ::2]``, become one
   Slice of what the first reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.rewrites.replacement import Replacement, Rewrite, read_constant, rewrite_nodes

LOWEST = -(2**63)
"""An end in front of every axis."""
Cut = tuple[int, int, int, int]
"""The axis, start, end and step of a Slice."""


def rewrite_strided_slices(graph: ir.Graph) -> None:
    """Brings the slices of a graph with constant steps into one form, in place."""
    rewrite_nodes(graph, {("", "Gather"): slice_evenly})
    rewrite_nodes(graph, JOINING)


def slice_evenly(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """Writes a Gather as a Slice, where it picks every so-many-th place of a whole axis."""
    value, indices = node.inputs[0], read_constant(node.inputs[1])
    if value is None or value.shape is None or indices is None or indices.ndim != 1 or indices.size < 2:
        return None
    axis = node.attributes.get_int("axis", 0) % len(value.shape)
    length = value.shape[axis]
    if not isinstance(length, int):
        return None
    places = np.where(indices < 0, indices + length, indices).tolist()
    step = places[1] - places[0]
    if abs(step) < 2 or min(places) >= abs(step):
        return None
    cut = (axis, places[0], length if step > 0 else LOWEST, step)
    return [emit_slice(new, value, [cut])] if list(range(length)[slice(*cut[1:])]) == places else None


def join_slices(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """Writes a strided Slice of a strided Slice as one, where they cut different axes."""
    value = node.inputs[0]
    inner = None if value is None else value.producer()
    if inner is None or (inner.domain, inner.op_type) != ("", "Slice"):
        return None
    first, second = cuts_of(inner), cuts_of(node)
    if first is None or second is None or {axis for axis, *_ in first} & {axis for axis, *_ in second}:
        return None
    if not all(any(abs(step) > 1 for *_, step in cuts) for cuts in (first, second)):
        return None
    return [emit_slice(new, inner.inputs[0], [*first, *second])]


JOINING: dict[tuple[str, str], Rewrite] = {("", "Slice"): join_slices}


def cuts_of(node: ir.Node) -> list[Cut] | None:
    """Returns what a Slice cuts; None where that is not constant, or the rank that axes are counted from is unknown."""
    value = node.inputs[0]
    operands = [read_constant(each) for each in node.inputs[1:]]
    if value is None or value.shape is None or len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    if any(given is not None and read is None for given, read in zip(node.inputs[1:], operands, strict=True)):
        return None
    starts, ends = operands[0].tolist(), operands[1].tolist()
    axes = operands[2] if len(operands) > 2 else None
    steps = operands[3] if len(operands) > 3 else None
    along = range(len(starts)) if axes is None else [axis % len(value.shape) for axis in axes.tolist()]
    strides = [1] * len(starts) if steps is None else steps.tolist()
    return list(zip(along, starts, ends, strides, strict=True))


def emit_slice(new: Replacement, value: ir.Value | None, cuts: Sequence[Cut]) -> ir.Value:
    """Emits a Slice."""
    axes, starts, ends, steps = zip(*cuts, strict=True)
    return new.emit("Slice", value, *(new.constant(np.array(each, np.int64)) for each in (starts, ends, axes, steps)))
