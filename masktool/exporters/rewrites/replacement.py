"""Replaces a node by a few others: the functions that every table of rewrites shares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

NHWC_TO_NCHW = (0, 3, 1, 2)
NCHW_TO_NHWC = (0, 2, 3, 1)


class Replacement:
    """Emits, in front of a node, the nodes that take its place."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node

    def emit(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Emits a node of the standard domain and returns its only output; attributes that are None are left out."""
        given = {name: value for name, value in attributes.items() if value is not None}
        node = ir.node(op_type, inputs, given, name=f"{self.node.name}/{op_type}")
        self.graph.insert_before(self.node, node)
        return node.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Adds an initializer that holds an array."""
        name = f"{self.node.name}/constant_{len(self.graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def to_nchw(self, value: ir.Value | None) -> ir.Value:
        """Emits the transposition of a map (N, H, W, C) to (N, C, H, W)."""
        return self._transposed(value, NHWC_TO_NCHW, NCHW_TO_NHWC)

    def to_nhwc(self, value: ir.Value | None) -> ir.Value:
        """Emits the transposition of a map (N, C, H, W) to (N, H, W, C)."""
        return self._transposed(value, NCHW_TO_NHWC, NHWC_TO_NCHW)

    def _transposed(self, value: ir.Value | None, order: Sequence[int], inverse: Sequence[int]) -> ir.Value:
        """Emits a transposition, or returns the value in front of its inverse where the inverse gives ``value``."""
        producer = None if value is None else value.producer()
        if producer is not None and producer.op_type == "Transpose":
            source = producer.inputs[0]
            if source is not None and producer.attributes.get_ints("perm") == list(inverse):
                return source
        return self.emit("Transpose", value, perm=list(order))


Rewrite = Callable[[Replacement, ir.Node], Sequence[ir.Value | None] | None]
"""Emits a node's replacement and returns its outputs, None for one that it does not have; None for all of them leaves
the node as it is."""


def rewrite_nodes(graph: ir.Graph, table: Mapping[tuple[str, str], Rewrite]) -> bool:
    """Replaces every node whose (domain, op_type) has a rewrite, in place; returns whether there was such a node.

    A node stays where one of its outputs is used that the replacement does not have.
    """
    found = False
    for node in tuple(graph):
        rewrite = table.get((node.domain, node.op_type))
        results = None if rewrite is None else rewrite(Replacement(graph, node), node)
        if results is None:
            continue
        pairs = tuple(itertools.zip_longest(node.outputs, results[: len(node.outputs)]))
        if any(new is None and is_used(old) for old, new in pairs):
            continue
        for old, new in pairs:
            if new is not None:
                new.name, new.type, new.shape = old.name, old.type, old.shape
                old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        found = True
    return found


def is_used(value: ir.Value) -> bool:
    """Whether anything reads a value."""
    return bool(value.uses()) or value.is_graph_output()


def read_constant(value: ir.Value | None) -> np.ndarray | None:
    """Returns the content of a constant; None for a value that is left out or computed."""
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attributes_of(node: ir.Node, *names: str) -> dict[str, ir.Attr]:
    """Returns those of the named attributes that a node has."""
    return {name: node.attributes[name] for name in names if name in node.attributes}
