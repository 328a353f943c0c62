"""If, Loop and Scan: the images may not decide conditions or numbers of rounds, and carried values keep them apart."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.exporters.independence.states import (
    RANDOM,
    BatchGraph,
    BatchRuleError,
    Count,
    Lost,
    MixesError,
    Places,
    Rows,
    State,
    States,
    UnprovedError,
    batch_rule,
)
from masktool.exporters.node_inputs import input_of
from masktool.exporters.subgraphs import nodes_inside

MOST_ROUNDS = 4
"""Rounds after which carried states must have settled: each goes from 'the same for all' to 'one per image' at most
once, and a value may wait for another."""


def follow_body(graph: BatchGraph, body: ir.Graph) -> list[State]:
    """Returns the states of a subgraph's results.

    Raises:
        BatchRuleError: a node within the subgraph mixes images, or may.
    """
    before = len(graph.findings)
    graph.follow(body)
    if len(graph.findings) > before:
        first = graph.findings[before]
        del graph.findings[before:]
        error = MixesError if first.kind == "mixes" else UnprovedError
        raise error(f"within it, {first}")
    states = [graph.state(value) for value in body.outputs]
    if any(isinstance(state, Lost) for state in states):
        raise UnprovedError("nothing is known of what it gives")
    return states


def decide(graph: BatchGraph, value: ir.Value | None, what: str) -> None:
    """Raises MixesError where a condition or a number of rounds depends on the images or on their number."""
    state = graph.state(value)
    if isinstance(state, Rows):
        raise MixesError(f"{what} depends on the images")
    if isinstance(state, Places) or (isinstance(state, Count) and state.varies):
        raise MixesError(f"{what} depends on how many images there are")


def join_states(left: State, right: State) -> State:
    """Returns the state that holds for either of two values.

    Raises:
        UnprovedError: the two states do not go together: the images lie differently, say.
    """
    if left == right:
        return left
    if isinstance(left, Rows) and isinstance(right, Rows):
        raise UnprovedError("the images lie elsewhere after one course than after another")
    if isinstance(left, Count) or isinstance(right, Count):
        if isinstance(left, Rows) or isinstance(right, Rows):
            raise UnprovedError("one course gives images and the other lengths")
        return Count(any(isinstance(each, Count) and each.varies for each in (left, right)))
    raise UnprovedError("one course gives the same for all images and the other does not")


@batch_rule("If")
def batch_if(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an If, both of whose branches must keep the images apart, and on the same axis."""
    decide(graph, node.inputs[0], "its condition")
    branches = [follow_body(graph, node.attributes[name].as_graph()) for name in ("then_branch", "else_branch")]
    return [join_states(left, right) for left, right in zip(*branches, strict=True)]


@batch_rule("Loop")
def batch_loop(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Loop, whose carried values must keep their states from round to round."""
    decide(graph, input_of(node, 0), "the number of its rounds")
    decide(graph, input_of(node, 1), "its condition")
    body = node.attributes["body"].as_graph()
    carried = [graph.state(value) for value in node.inputs[2:]]
    found = settle(graph, body, carried, body.inputs[2:], first=1)
    decide(graph, body.outputs[0], "its condition")
    gathered = [rows_behind(state, 0) for state in found[1 + len(carried) :]]
    return [*found[1 : 1 + len(carried)], *gathered]


@batch_rule("Scan")
def batch_scan(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Scan along an axis of each sequence; along the images' axis it may carry nothing between images."""
    body = node.attributes["body"].as_graph()
    count = node.attributes["num_scan_inputs"].as_int()
    start = len(node.inputs) - count
    states = [graph.state(value) for value in node.inputs]
    axes = scan_axes(graph, node, "scan_input_axes", node.inputs[start:])
    scanned = states[start:]
    over_images = [isinstance(state, Rows) and state.axis == axis for state, axis in zip(scanned, axes, strict=True)]
    if any(over_images):
        return scan_images(graph, node, over_images)
    for inner, value, axis in zip(body.inputs[start:], node.inputs[start:], axes, strict=True):
        graph.set_state(inner, state_within(graph, value, axis))
    found = settle(graph, body, states[:start], body.inputs[:start], first=0)
    placed = scan_axes(graph, node, "scan_output_axes", node.outputs[start:])
    gathered = [rows_behind(state, axis) for state, axis in zip(found[start:], placed, strict=True)]
    return [*found[:start], *gathered]


def state_within(graph: BatchGraph, value: ir.Value | None, axis: int) -> State:
    """Returns the state of what a Scan that does not go along the images reads in each round.

    Raises:
        UnprovedError: the number of rounds may depend on the number of images.
    """
    state = graph.state(value)
    if isinstance(state, Rows):
        return state.at(state.axis - (axis < state.axis))
    if isinstance(state, Places) or (isinstance(state, Count) and state.varies):
        length = graph.lengths(value)[axis]
        if length is None or length.symbols:
            raise UnprovedError("the number of its rounds may depend on how many images there are")
        return Count(True)
    return Count(False) if isinstance(state, Count) else state


def scan_axes(graph: BatchGraph, node: ir.Node, name: str, values: Sequence[ir.Value | None]) -> list[int]:
    """Returns the axis along which a Scan reads, or writes, each sequence."""
    given = node.attributes.get_ints(name) or [0] * len(values)
    return [axis % graph.rank(value) for axis, value in zip(given, values, strict=True)]


def scan_images(graph: BatchGraph, node: ir.Node, over_images: list[bool]) -> States:
    """Returns the states of the results of a Scan that takes one image a round and carries nothing."""
    outside = [graph.state(value) for inner in nodes_inside(node) for value in inner.inputs]
    if len(node.inputs) > len(over_images):
        raise MixesError("carries something from image to image")
    rows = [graph.rows(value) for value in node.inputs]
    if not all(over_images) or any(each is None or not each.pure for each in rows):
        raise UnprovedError("goes along images and along something else")
    if any(state is not None for state in outside) or any(inner.op_type in RANDOM for inner in nodes_inside(node)):
        raise UnprovedError("reads something of all images for each of them")
    given = (node.attributes.get_ints(f"scan_{side}_directions") or [0] for side in ("input", "output"))
    if len({direction for directions in given for direction in directions}) > 1:
        raise MixesError("reads and writes images in different orders")
    return [Rows(axis) for axis in scan_axes(graph, node, "scan_output_axes", node.outputs)]


def settle(
    graph: BatchGraph, body: ir.Graph, carried: Sequence[State], inputs: Sequence[ir.Value], first: int
) -> list[State]:
    """Returns the states of a body's results once the states of the carried values no longer change.

    Args:
        graph: the graph that the body belongs to.
        body: the body of the Loop or Scan.
        carried: the states of the carried values at the start.
        inputs: the inputs of the body that hold the carried values.
        first: the index of the first carried value among the body's results.

    Raises:
        BatchRuleError: a node within the body mixes images, or may, or the states keep changing.
    """
    current = list(carried)
    for _ in range(MOST_ROUNDS):
        for value, state in zip(inputs, current, strict=True):
            graph.set_state(value, state)
        found = follow_body(graph, body)
        new = [join_states(old, state) for old, state in zip(current, found[first : first + len(current)], strict=True)]
        if new == current:
            return found
        current = new
    raise UnprovedError("what it carries does not settle")


def rows_behind(state: State, axis: int) -> State:
    """Returns the state of results that were gathered along a new axis."""
    if isinstance(state, Rows):
        return state.at(state.axis + (axis <= state.axis))
    if isinstance(state, Places):
        return Count(True)
    return Count(state.varies) if isinstance(state, Count) else state


__all__ = ["BatchRuleError", "batch_if", "batch_loop", "batch_scan"]
