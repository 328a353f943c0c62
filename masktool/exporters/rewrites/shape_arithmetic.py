"""Evaluates arithmetic on shapes as far as shapes are known, entry by entry.

Exporters compute the targets of Reshape, Expand and Resize from ``Shape`` nodes. With an open batch such a vector is no
constant, but all of it except the batch is.

1. Every vector or scalar that follows from shapes and constants is evaluated; an entry is a number, the name of an open
   axis, or unknown.
2. A vector or scalar whose entries are all numbers becomes a constant.
3. A Reshape, Expand or Resize whose target has open entries gets a constant target all the same, where those entries
   say no more than "as long as the input is there".

Source: ONNX operator specification, Reshape (0 copies an axis, -1 is inferred), Expand, Resize (``axes``).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import Replacement, is_used, read_constant

MAX_ENTRIES = 64
"""Longer constants are weights, not shapes."""

Entries = np.ndarray
"""An array of objects, rank 0 or 1: numbers, names of open axes, or None where unknown."""
Known = dict[ir.Value, Entries]


def fold_shape_arithmetic(graph: ir.Graph) -> bool:
    """Evaluates arithmetic on shapes, and makes targets constant, in place.

    Returns:
        Whether anything became constant: then shapes are to be inferred again, and more may follow.
    """
    known: Known = {}
    constants = len(graph.initializers)
    for node in tuple(graph):
        if node.domain != "":
            continue
        if retarget := RETARGETS.get(node.op_type):
            retarget(graph, node, known)
        evaluate = EVALUATIONS.get(node.op_type)
        entries = None if evaluate is None else evaluate(node, known)
        if entries is None:
            continue
        entries = round_to_type(entries, node.outputs[0])
        known[node.outputs[0]] = entries
        if all(is_number(entry) for entry in entries.flat) and node.outputs[0].dtype is not None:
            make_constant(graph, node, entries)
    return len(graph.initializers) > constants


def entries_of(value: ir.Value | None, known: Known) -> Entries | None:
    """Returns the entries of a value that was evaluated before or is a short constant; None where none are known."""
    if value is None or value in known:
        return None if value is None else known[value]
    constant = read_constant(value)
    short = constant is not None and constant.ndim <= 1 and constant.size <= MAX_ENTRIES
    return constant.astype(object) if short and constant is not None else None


def is_number(entry: object) -> bool:
    """Whether an entry is a number, neither open nor unknown."""
    return entry is not None and not isinstance(entry, str)


def round_to_type(entries: Entries, value: ir.Value) -> Entries:
    """Returns entries with every number rounded to the value's element type, as the runtime does after every step."""
    if value.dtype is None:
        return entries
    dtype = value.dtype.numpy()
    result = np.empty(entries.shape, object)
    for index, entry in np.ndenumerate(entries):
        result[index] = np.asarray(entry).astype(dtype).item() if is_number(entry) else entry
    return result


def make_constant(graph: ir.Graph, node: ir.Node, entries: Entries) -> None:
    """Puts an initializer in the place of a node's only output."""
    output = node.outputs[0]
    assert output.dtype is not None
    if output.is_graph_output() or not is_used(output):
        return
    constant = Replacement(graph, node).constant(entries.astype(output.dtype.numpy()))
    output.replace_all_uses_with(constant)


# Evaluation: node, what is known → entries of its output, or None


def evaluate_shape(node: ir.Node, known: Known) -> Entries | None:
    """Shape: the lengths of the axes."""
    del known
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else size.value for size in value.shape]
    return as_entries(sizes[node.attributes.get_int("start", 0) : node.attributes.get_int("end", None)])


def evaluate_gather(node: ir.Node, known: Known) -> Entries | None:
    """Gather: some entries."""
    entries, indices = entries_of(node.inputs[0], known), read_constant(node.inputs[1])
    if entries is None or entries.ndim != 1 or indices is None or indices.ndim > 1:
        return None
    return as_entries(entries[indices.astype(np.int64)])


def evaluate_slice(node: ir.Node, known: Known) -> Entries | None:
    """Slice: some entries."""
    entries = entries_of(node.inputs[0], known)
    start, end = read_constant(node.inputs[1]), read_constant(node.inputs[2])
    step = np.array([1]) if input_of(node, 4) is None else read_constant(node.inputs[4])
    if entries is None or entries.ndim != 1 or start is None or end is None or step is None:
        return None
    return entries[int(start.item()) : int(end.item()) : int(step.item())]


def evaluate_concat(node: ir.Node, known: Known) -> Entries | None:
    """Concat: all entries."""
    parts = [entries_of(value, known) for value in node.inputs]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate([part for part in parts if part is not None])


def evaluate_reshape(node: ir.Node, known: Known) -> Entries | None:
    """Unsqueeze, Squeeze and Reshape: a scalar to a vector of one entry, or back."""
    entries, output = entries_of(node.inputs[0], known), node.outputs[0]
    if entries is None or output.shape is None or len(output.shape) > 1:
        return None
    return entries.reshape(-1) if len(output.shape) else entries.reshape(()) if entries.size == 1 else None


def evaluate_unchanged(node: ir.Node, known: Known) -> Entries | None:
    """Cast and Identity: the same entries (rounded to the element type afterwards)."""
    return entries_of(node.inputs[0], known)


def evaluate_product(node: ir.Node, known: Known) -> Entries | None:
    """ReduceProd over all entries, and Size."""
    entries = evaluate_shape(node, known) if node.op_type == "Size" else entries_of(node.inputs[0], known)
    if entries is None or not all(is_number(entry) for entry in entries.flat):
        return None
    product = as_entries(math.prod(entries.flat))
    keeps = node.op_type == "ReduceProd" and node.attributes.get_int("keepdims", 1) == 1
    return product.reshape(-1) if keeps else product


def evaluate_with(compute: Callable[..., Any]) -> Callable[[ir.Node, Known], Entries | None]:
    """Returns the evaluation of an operator that works entry by entry; open and unknown entries become unknown."""

    def evaluate(node: ir.Node, known: Known) -> Entries | None:
        operands = [entries_of(value, known) for value in node.inputs]
        if any(operand is None for operand in operands):
            return None
        arrays = np.broadcast_arrays(*(operand for operand in operands if operand is not None))
        result = np.empty(arrays[0].shape, object)
        for index in np.ndindex(result.shape):
            entries = [array[index] for array in arrays]
            result[index] = compute(*entries) if all(map(is_number, entries)) else None
        return result

    return evaluate


def divide_numbers(a: float, b: float) -> float | None:
    """Returns a / b as ONNX has it: of integers cut off towards 0."""
    if b == 0:
        return None
    return int(a / b) if isinstance(a, int) and isinstance(b, int) else a / b


def as_entries(values: Any) -> Entries:
    """Returns entries as an array of objects."""
    sequence = isinstance(values, Sequence | np.ndarray)
    result = np.empty(len(values) if sequence and np.ndim(values) else (), object)
    result[...] = values
    return result


EVALUATIONS: Mapping[str, Callable[[ir.Node, Known], Entries | None]] = {
    "Shape": evaluate_shape,
    "Size": evaluate_product,
    "Gather": evaluate_gather,
    "Slice": evaluate_slice,
    "Concat": evaluate_concat,
    "Unsqueeze": evaluate_reshape,
    "Squeeze": evaluate_reshape,
    "Reshape": evaluate_reshape,
    "Cast": evaluate_unchanged,
    "Identity": evaluate_unchanged,
    "ReduceProd": evaluate_product,
    "Add": evaluate_with(operator.add),
    "Sub": evaluate_with(operator.sub),
    "Mul": evaluate_with(operator.mul),
    "Div": evaluate_with(divide_numbers),
    "Max": evaluate_with(lambda *entries: max(entries)),
    "Min": evaluate_with(lambda *entries: min(entries)),
    "Floor": evaluate_with(math.floor),
    "Ceil": evaluate_with(math.ceil),
}


# Targets: constants wherever an open entry says "as long as the input is there"


def retarget_reshape(graph: ir.Graph, node: ir.Node, known: Known) -> None:
    """Makes a Reshape's target constant: 0 for open entries that copy an axis of the input, -1 for the only other."""
    entries = open_target(node, 1, known)
    value = node.inputs[0]
    if entries is None or value is None or value.shape is None or node.attributes.get_int("allowzero", 0) == 1:
        return
    sizes = names_of(value.shape)
    target = [
        entry if is_number(entry) else 0 if index < len(sizes) and entry is not None and entry == sizes[index] else None
        for index, entry in enumerate(entries)
    ]
    if target.count(None) == 1 and -1 not in target:
        target[target.index(None)] = -1
    if None not in target:
        node.replace_input_with(1, Replacement(graph, node).constant(np.array(target, np.int64)))


def retarget_expand(graph: ir.Graph, node: ir.Node, known: Known) -> None:
    """Makes an Expand's target constant: 1, which leaves an axis as it is, for open entries that the input has."""
    entries = open_target(node, 1, known)
    value = node.inputs[0]
    if entries is None or value is None or value.shape is None or len(entries) < len(value.shape):
        return
    sizes = [None] * (len(entries) - len(value.shape)) + names_of(value.shape)
    target = [
        entry if is_number(entry) else 1 if entry is not None and entry == size else None
        for entry, size in zip(entries, sizes, strict=True)
    ]
    if None not in target:
        node.replace_input_with(1, Replacement(graph, node).constant(np.array(target, np.int64)))


def retarget_resize(graph: ir.Graph, node: ir.Node, known: Known) -> None:
    """Makes a Resize's target constant: names the axes whose length changes, and leaves open ones out."""
    entries = open_target(node, 3, known)
    value = node.inputs[0]
    if entries is None or value is None or value.shape is None or "axes" in node.attributes:
        return
    sizes = names_of(value.shape)
    open_axes = [axis for axis, entry in enumerate(entries) if not is_number(entry)]
    if len(sizes) != len(entries) or any(entries[axis] is None or entries[axis] != sizes[axis] for axis in open_axes):
        return
    axes = [axis for axis in range(len(entries)) if axis not in open_axes]
    target = np.array([entries[axis] for axis in axes], np.int64)
    node.replace_input_with(3, Replacement(graph, node).constant(target))
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)


def retarget_squeeze(graph: ir.Graph, node: ir.Node, known: Known) -> None:
    """Names the axes of length 1 that a Squeeze drops where the batch is open: never the batch, whatever its length."""
    del known
    value = node.inputs[0]
    if input_of(node, 1) is not None or value is None or value.shape is None or not len(value.shape):
        return
    batch, *sizes = value.shape
    if not isinstance(batch, int) and all(isinstance(size, int) for size in sizes):
        axes = [axis for axis, size in enumerate(sizes, 1) if size == 1]
        node.resize_inputs(2)
        node.replace_input_with(1, Replacement(graph, node).constant(np.array(axes, np.int64)))


def open_target(node: ir.Node, index: int, known: Known) -> Entries | None:
    """Returns the entries of a target that is no constant; None for a constant, or where no entries are known."""
    target = input_of(node, index)
    return None if target is None or read_constant(target) is not None else known.get(target)


def names_of(shape: ir.Shape) -> list[int | str | None]:
    """Returns the lengths of axes: numbers, or the names of open ones."""
    return [size if isinstance(size, int) else size.value for size in shape]


RETARGETS: Mapping[str, Callable[[ir.Graph, ir.Node, Known], None]] = {
    "Reshape": retarget_reshape,
    "Expand": retarget_expand,
    "Resize": retarget_resize,
    "Squeeze": retarget_squeeze,
}
