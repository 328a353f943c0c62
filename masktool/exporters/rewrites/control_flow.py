"""Writes out an If or Loop whose course is known before the model runs.

1. An If with a constant condition becomes the branch it takes.
2. A Loop with a constant trip count, whose condition stays true, becomes as many copies of its body.

Any other If or Loop stays where it is: it runs as before where it does not depend on the image, and is refused by name
where it does. Shape arithmetic has to be folded first; exporters write an If over the length of an axis, and its
condition is constant once shapes are known.

Source: ONNX operator specification, If and Loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import Replacement, read_constant

MAX_UNROLLED_NODES = 10_000
"""Most nodes of one Loop that is written out: networks have a few hundred nodes, and rules, inference and checks walk
over all of them."""


def inline_control_flow(graph: ir.Graph) -> bool:
    """Writes out every If and Loop whose course is known, in place; returns whether there was such a node."""
    found = False
    for node in tuple(graph):
        results = None
        if node.domain == "" and node.op_type == "If":
            results = inline_if(graph, node)
        elif node.domain == "" and node.op_type == "Loop":
            results = unroll_loop(graph, node)
        if results is not None:
            replace_outputs(graph, node, results)
            found = True
    return found


def inline_if(graph: ir.Graph, node: ir.Node) -> list[ir.Value] | None:
    """Emits the branch that an If takes and returns its results; None where the branch is not known."""
    condition = read_constant(node.inputs[0])
    if condition is None:
        return None
    branch = "then_branch" if condition.item() else "else_branch"
    return emit_body(graph, node, node.attributes[branch].as_graph(), [], branch)


def unroll_loop(graph: ir.Graph, node: ir.Node) -> list[ir.Value] | None:
    """Emits a Loop's body once per iteration and returns its results; None for unknown, 0 or too many iterations."""
    body = node.attributes["body"].as_graph()
    count, carried = read_constant(input_of(node, 0)), list(node.inputs[2:])
    if count is None or not stays_true(node, body):
        return None
    trips = int(count.item())
    if not 0 < trips * len(body) <= MAX_UNROLLED_NODES:
        return None
    new = Replacement(graph, node)
    always = new.constant(np.array(True))
    collected: list[list[ir.Value]] = []
    for trip in range(trips):
        index = new.constant(np.array(trip, np.int64))
        results = emit_body(graph, node, body, [index, always, *carried], f"iteration_{trip}")[1:]
        scanned, carried = results[len(carried) :], list(results[: len(carried)])
        collected.append(scanned)
    axis = new.constant(np.array([0], np.int64))
    stacked = [
        new.emit("Concat", *(new.emit("Unsqueeze", value, axis) for value in values), axis=0)
        for values in zip(*collected, strict=True)
    ]
    return [*(value for value in carried if value is not None), *stacked]


def stays_true(node: ir.Node, body: ir.Graph) -> bool:
    """Whether the condition of a Loop is true at the start and behind every iteration."""
    start, behind = input_of(node, 1), body.outputs[0]
    initial = read_constant(start)
    if start is not None and (initial is None or not initial.item()):
        return False
    while (producer := behind.producer()) is not None and producer.op_type == "Identity":
        assert producer.inputs[0] is not None
        behind = producer.inputs[0]
    constant = read_constant(behind)
    return behind is body.inputs[1] or (constant is not None and bool(constant.item()))


def emit_body(
    graph: ir.Graph, node: ir.Node, body: ir.Graph, arguments: Sequence[ir.Value | None], label: str
) -> list[ir.Value]:
    """Emits a copy of a subgraph in front of its node.

    Args:
        graph: the graph that the node is part of.
        node: the If or Loop.
        body: the subgraph; values of the outer graph that it reads are read from there.
        arguments: the values that take the place of the subgraph's inputs.
        label: the part of the copy's names that tells them from another copy's.

    Returns:
        The values that take the place of the subgraph's outputs.
    """
    copy = body.clone(allow_outer_scope_values=True)
    for formal, actual in zip(copy.inputs, arguments, strict=True):
        assert actual is not None
        formal.replace_all_uses_with(actual, replace_graph_outputs=True)
    outputs, nodes = list(copy.outputs), tuple(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    for weight in tuple(copy.initializers.values()):
        assert weight.name is not None
        del copy.initializers[weight.name]
        weight.name = f"{node.name}/{label}/{weight.name}"
        graph.register_initializer(weight)
    for inner in nodes:
        inner.name = f"{node.name}/{label}/{inner.name}"
        for value in inner.outputs:
            value.name = f"{node.name}/{label}/{value.name}" if value.name else value.name
    graph.insert_before(node, nodes)
    return outputs


def replace_outputs(graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Puts results in the place of a node's outputs and removes the node.

    A result may be a graph's input, or stand there twice: an Identity gives each output a value of its own.
    """
    new = Replacement(graph, node)
    for old, result in zip(node.outputs, results, strict=True):
        own = new.emit("Identity", result)
        own.name, own.type, own.shape = old.name, result.type or old.type, result.shape or old.shape
        old.replace_all_uses_with(own, replace_graph_outputs=True)
    graph.remove(node, safe=True)
