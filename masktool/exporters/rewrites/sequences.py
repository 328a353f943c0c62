"""Makes tensors of sequences whose parts are known; the constant folder then picks them by their places.

torch writes ``tensor_split``, and ``split`` and ``unbind`` in scripted code, as ``SplitToSequence`` and ``SequenceAt``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.exporters.inference import every_node
from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import Replacement, read_constant

MOST_PARTS = 256
"""Most parts of one sequence that is written out: networks split into heads, scales, gates and the like."""


def settle_kept_axes(model: ir.Model) -> None:
    """Makes all runtimes agree, in place, on whether parts of a SplitToSequence keep the axis that it splits.

    ONNX ignores ``keepdims`` where lengths are given. ONNX Runtime does so of a list of lengths, and not of the one
    length 1, which torch writes for ``unbind``; that says the same as no lengths at all.

    Source: ONNX operator specification, SplitToSequence; measured on ONNX Runtime 1.31.
    """
    for node in every_node(model):
        if node.op_type != "SplitToSequence" or node.domain != "" or node.attributes.get_int("keepdims", 1) == 1:
            continue
        lengths = read_constant(input_of(node, 1))
        if lengths is not None and lengths.ndim:
            del node.attributes["keepdims"]
        elif lengths is not None and lengths.item() == 1:
            node.resize_inputs(1)


def split_into_parts(graph: ir.Graph) -> bool:
    """Writes out every sequence of parts whose lengths are known, in place; returns whether there was such a sequence.

    onnxscript's folder does so too, but forgets the node's name, which messages show.
    """
    found = False
    for node in tuple(graph):
        if node.op_type == "SplitToSequence" and node.domain == "" and (lengths := lengths_of_parts(node)):
            replace_by_split(Replacement(graph, node), node, lengths)
            found = True
    return found


def lengths_of_parts(node: ir.Node) -> list[int] | None:
    """Returns the lengths of the parts that a SplitToSequence gives; None where they are not known, or too many.

    Source: ONNX operator specification, SplitToSequence: as listed, or all of one length and the last one shorter.
    """
    value, axis, lengths = node.inputs[0], node.attributes.get_int("axis", 0), read_constant(input_of(node, 1))
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    if lengths is None and input_of(node, 1) is not None:  # they are computed
        return None
    if lengths is not None and lengths.ndim:
        return lengths.tolist() if lengths.size <= MOST_PARTS else None
    total, step = value.shape[axis], 1 if lengths is None else int(lengths.item())
    if not isinstance(total, int) or step < 1 or total > step * MOST_PARTS:
        return None
    return [min(step, total - start) for start in range(0, total, step)]


def replace_by_split(new: Replacement, node: ir.Node, lengths: list[int]) -> None:
    """Puts a Split into parts of these lengths, and a sequence of them, in the place of a node."""
    value, listed = node.inputs[0], read_constant(input_of(node, 1))
    assert value is not None  # lengths are known
    assert value.shape is not None
    axis = node.attributes.get_int("axis", 0) % len(value.shape)
    inputs = [value, new.constant(np.array(lengths, np.int64))]
    split = ir.node("Split", inputs, {"axis": axis}, num_outputs=len(lengths), name=f"{node.name}/Split")
    new.graph.insert_before(node, split)
    parts = list(split.outputs)
    if node.attributes.get_int("keepdims", 1) == 0 and (listed is None or not listed.ndim):
        place = new.constant(np.array([axis], np.int64))
        parts = [new.emit("Squeeze", part, place) for part in parts]
    sequence, old = new.emit("SequenceConstruct", *parts), node.outputs[0]
    sequence.name, sequence.type = old.name, old.type
    old.replace_all_uses_with(sequence, replace_graph_outputs=True)
    new.graph.remove(node, safe=True)
