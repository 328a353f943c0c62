"""The nodes in the subgraphs of a node."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from masktool.ops.gradients import graphs_inside


def nodes_inside(node: ir.Node) -> Iterator[ir.Node]:
    """Yields the nodes of a node's subgraphs (If, Loop, Scan), which read outer values that are none of its inputs."""
    for graph in graphs_inside(node):
        yield from graph.all_nodes()
