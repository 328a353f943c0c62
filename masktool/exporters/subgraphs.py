"""The nodes in the subgraphs of a node."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def nodes_inside(node: ir.Node) -> Iterator[ir.Node]:
    """Yields the nodes of a node's subgraphs (If, Loop, Scan), which read outer values that are none of its inputs."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().all_nodes()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for subgraph in attribute.as_graphs():
                yield from subgraph.all_nodes()
