"""RNN, GRU and LSTM: the batch lies on axis 1 (``layout`` 0) or 0 (``layout`` 1)."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.independence.states import (
    BatchGraph,
    MixesError,
    States,
    UnprovedError,
    batch_rule,
)
from masktool.exporters.node_inputs import input_of

SEQUENCE, LENGTHS, STATES = 0, 4, (5, 6)
"""Indices of the inputs with one row per image: the sequence, its lengths and the initial states."""


@batch_rule("RNN", "GRU", "LSTM")
def batch_recurrent(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an RNN, GRU or LSTM, in which every image has a state of its own."""
    first = bool(node.attributes.get_int("layout", 0))
    axis = 0 if first else 1
    rows = graph.rows(node.inputs[SEQUENCE])
    if rows is None:
        raise UnprovedError("its states depend on the images, and its sequence does not")
    if rows.axis != axis:
        raise MixesError("takes the batch for the time or for channels")
    expected = {SEQUENCE: rows, LENGTHS: rows.at(0), **{index: rows.at(axis) for index in STATES}}
    for index, value in enumerate(node.inputs):
        own = graph.rows(value)
        if own is not None and own != expected.get(index):
            raise UnprovedError("its parameters depend on the images")
        if own is None and index in expected and input_of(node, index) is not None:
            raise UnprovedError("starts with states of a fixed number of rows")
    whole = rows.at(0 if first else 2)
    return [whole, *[rows.at(axis)] * (len(node.outputs) - 1)]
