"""Removes Identity nodes from a graph and its subgraphs."""

from __future__ import annotations

import onnx_ir as ir


def remove_identities(graph: ir.Graph) -> None:
    """Makes all readers of an Identity read the Identity's input, in place.

    An Identity that gives a graph an output stays where its input has a name to keep: another output, an input, a
    weight, or a value of an outer graph.
    """
    for node in tuple(ir.traversal.RecursiveGraphIterator(graph)):
        if node.op_type == "Identity" and node.domain == "" and (source := node.inputs[0]) is not None:
            remove_identity(node, source)


def remove_identity(node: ir.Node, source: ir.Value) -> None:
    """Removes an Identity node, unless an output needs it."""
    output, owner = node.outputs[0], node.graph
    assert owner is not None
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not owner or source.is_graph_output():
            return
        source.name = output.name
    source.type = source.type or output.type
    if source.shape is None or any(not isinstance(length, int) for length in source.shape):
        source.shape = output.shape or source.shape
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    owner.remove(node, safe=True)
