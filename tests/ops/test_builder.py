"""A request that was made before is answered by the node of then; one that differs in anything is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from masktool.ops.gradients import GradientGraph

LONG = np.zeros(2000, np.float32)
"""Longer than what is written out when a tensor is printed."""
BUMP = LONG.copy()
BUMP[1000] = 1


def empty_graph() -> GradientGraph:
    return GradientGraph(ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="empty"), ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ir.tensor(LONG), ir.tensor(BUMP)),
        (ir.tensor([0.1], ir.DataType.FLOAT), ir.tensor([0.1], ir.DataType.DOUBLE)),
        (ir.tensor(np.zeros((2, 3), np.float32)), ir.tensor(np.zeros((3, 2), np.float32))),
        (ir.tensor(np.float32([0.0])), ir.tensor(np.float32([-0.0]))),
        (ir.tensor(np.float32([1.0])), ir.tensor(np.float32([1 + 2**-23]))),
        ([ir.tensor(LONG)], [ir.tensor(BUMP)]),
        (0.0, -0.0),
        (1, 1.0),
        (1, "1"),
        ([1, 23], [12, 3]),
    ],
)
def test_different_attributes_are_different_nodes(one: Any, other: Any) -> None:
    graph = empty_graph()
    operand = graph.constant(0, ir.DataType.FLOAT)
    assert graph.emit("Any", operand, value=one) is not graph.emit("Any", operand, value=other)
    assert graph.emit("Any", operand, value=one) is graph.emit("Any", operand, value=one)


def test_equal_tensors_are_one_node() -> None:
    graph = empty_graph()
    operand = graph.constant(0, ir.DataType.FLOAT)
    one, other = (graph.emit("Any", operand, value=ir.tensor(BUMP.copy())) for _ in range(2))
    assert one is other


def test_constants_are_shared_by_their_bytes() -> None:
    graph = empty_graph()
    assert graph.constant(LONG, ir.DataType.FLOAT) is not graph.constant(BUMP, ir.DataType.FLOAT)
    assert graph.constant(BUMP, ir.DataType.FLOAT) is graph.constant(BUMP.copy(), ir.DataType.FLOAT)
