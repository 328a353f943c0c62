"""Sequences whose parts are known become tensors; the folder then takes them out by their places.

``SplitToSequence`` with its lengths given is written out by onnxscript's folder. What stands here is the rest: parts of
one place each, as ``Tensor.unbind`` is exported, and an attribute that readers differ in.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.exporters.inference import every_node
from masktool.exporters.rewrites.replacement import Replacement, given, read_constant

MOST_PARTS = 256
"""Of one sequence that is written out: torch unbinds heads, scales and the like."""


def settle_kept_axes(model: ir.Model) -> None:
    """Makes all readers agree on whether parts keep the axis that they were split along, in place.

    ONNX ignores ``keepdims`` where lengths are given. ONNX Runtime does so of a list of lengths, and not of the one
    length 1, which torch writes for ``unbind``; that says the same as no lengths at all.

    Source: ONNX operator specification, SplitToSequence; measured on ONNX Runtime 1.31.
    """
    for node in every_node(model):
        if node.op_type != "SplitToSequence" or node.domain != "" or node.attributes.get_int("keepdims", 1) == 1:
            continue
        lengths = read_constant(given(node, 1))
        if lengths is not None and lengths.ndim:
            del node.attributes["keepdims"]
        elif lengths is not None and lengths.item() == 1:
            node.resize_inputs(1)


def split_by_places(graph: ir.Graph) -> bool:
    """Writes out every sequence of parts of one place each, in place; returns whether there was any."""
    found = False
    for node in tuple(graph):
        if node.op_type != "SplitToSequence" or node.domain != "" or given(node, 1) is not None:
            continue
        value, axis = node.inputs[0], node.attributes.get_int("axis", 0)
        if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
            continue
        count = value.shape[axis]
        if isinstance(count, int) and 0 < count <= MOST_PARTS:
            replace_by_split(Replacement(graph, node), node, value, axis % len(value.shape), count)
            found = True
    return found


def replace_by_split(new: Replacement, node: ir.Node, value: ir.Value, axis: int, count: int) -> None:
    """Puts a Split into ``count`` parts, and a sequence of them, in the place of a node."""
    split = ir.node(
        "Split", [value], {"axis": axis, "num_outputs": count}, num_outputs=count, name=f"{node.name}/Split"
    )
    new.graph.insert_before(node, split)
    parts = list(split.outputs)
    if node.attributes.get_int("keepdims", 1) == 0:
        place = new.constant(np.array([axis], np.int64))
        parts = [new.emit("Squeeze", part, place) for part in parts]
    sequence = new.emit("SequenceConstruct", *parts)
    old = node.outputs[0]
    sequence.name, sequence.type = old.name, old.type
    old.replace_all_uses_with(sequence, replace_graph_outputs=True)
    new.graph.remove(node, safe=True)
