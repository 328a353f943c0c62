"""Inputs with a default: read by one node each, so that what a caller feeds reaches every provider.

Where nodes of two providers read an initializer, ONNX Runtime gives each provider a copy (``Making a copy of the
initializer``), and feeds what the caller gives to one of them alone: on a GPU the other nodes would go on with the
default, a mask of ones, without a word.
"""

from __future__ import annotations

import onnx_ir as ir

READER = "LeakyRelu"
"""With a slope of 1 on both sides it changes nothing, every provider has it, and ONNX Runtime, which leaves out nodes
such as Identity before it chooses providers, keeps it."""


def read_once(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Returns what stands for an input (of floating point) in the graph: a node of its own where it has a default.

    The node is the first of the graph, and there is one however often this is called.
    """
    if value.name not in graph.initializers:
        return value
    users = tuple(value.uses())
    if len(users) == 1 and is_reader(users[0].node):
        reader = users[0].node
        graph.remove(reader)
    else:
        reader = ir.node(READER, [value], {"alpha": 1.0}, name=f"masktool/{value.name}")
        (output,) = reader.outputs
        output.name, output.type, output.shape = f"{value.name}_read", value.type, value.shape
        for user, index in users:
            user.replace_input_with(index, output)
    graph.insert_before(graph[0], reader)
    return reader.outputs[0]


def is_reader(node: ir.Node) -> bool:
    """Tells whether a node is one of :func:`read_once`."""
    read = node.inputs[0] if node.op_type == READER else None
    return read is not None and read.is_graph_input() and read.is_initializer()
