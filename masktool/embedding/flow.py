"""Builds the graph of an explanation, node behind node; bodies of loops and branches are graphs of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import GraphBuilder

FLOAT, INT64, BOOL, UINT8 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.UINT8


Lengths = Sequence[int | str | ir.SymbolicDim | None]
"""The length of every axis of a value: a number, a name, or None where unknown."""


class LoopResult(NamedTuple):
    """What a loop leaves behind: the carried values of its last round, and the stacked values (rounds, ...) of all."""

    carried: list[ir.Value]
    stacked: list[ir.Value]


Round = Callable[["Flow", ir.Value, list[ir.Value]], tuple[Sequence[ir.Value], Sequence[ir.Value]]]
"""Emits one round of a loop: from the body, the round's number () int64 and the carried values to the carried values of
the next round and the values to stack."""

Condition = Callable[["Flow", Sequence[ir.Value]], ir.Value]
"""Emits whether another round follows, () bool: from the body and the values that are carried to that round."""


class Flow(GraphBuilder):
    """Emits nodes at the end of a graph; the same request twice is one node.

    Args:
        graph: the graph to append to.
        label: what the names of nodes and constants begin with.
    """

    def __init__(self, graph: ir.Graph, label: str = "explanation") -> None:
        super().__init__(graph)
        self.prefix = label
        self._bodies = itertools.count(1)

    @property
    def label(self) -> str:
        """What the names of emitted nodes begin with."""
        return self.prefix

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node at the end of the graph."""
        self.graph.append(node)

    def floats(self, values: Any) -> ir.Value:
        """Returns a float32 constant."""
        return self.constant(values, FLOAT)

    def ints(self, *values: int) -> ir.Value:
        """Returns an int64 constant of one axis."""
        return self.constant(list(values), INT64)

    def integer(self, value: int) -> ir.Value:
        """Returns an int64 number, ()."""
        return self.constant(value, INT64)

    def typed(self, value: ir.Value, dtype: ir.DataType, shape: Lengths | None = None) -> ir.Value:
        """Declares the element type and, where given, the shape of a value, and returns the value."""
        value.type = ir.TensorType(dtype)
        if shape is not None:
            value.shape = ir.Shape(shape)
        return value

    def filled(self, shape: Sequence[int], number: float) -> ir.Value:
        """Returns float32 values of one and the same number, which is stored once."""
        value = self.emit("ConstantOfShape", self.ints(*shape), value=ir.tensor([number], dtype=FLOAT))
        return self.typed(value, FLOAT, list(shape))

    def largest(self, values: ir.Value, count: int) -> ir.Value:
        """Returns the largest of values (n,), largest first."""
        node = self._emit("TopK", [values, self.ints(count)], {"axis": 0, "largest": 1, "sorted": 1}, "", 2)
        self.typed(node.outputs[1], INT64)
        return node.outputs[0]

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        """Returns a value in another shape, in which -1 stands for what is left and 0 for the length that it has."""
        return self.emit("Reshape", value, self.ints(*shape))

    def rows(self, value: ir.Value, start: int, end: int) -> ir.Value:
        """Returns the rows ``start`` to ``end`` (not included) of a value."""
        return self.emit("Slice", value, self.ints(start), self.ints(end), self.ints(0))

    def loop(
        self, count: ir.Value | int, carried: Sequence[ir.Value], emit_round: Round, goes_on: Condition | None = None
    ) -> LoopResult:
        """Emits a Loop.

        Args:
            count: the largest number of rounds, a number or an int64 value ().
            carried: the values that the first round starts from; their types and shapes are declared.
            emit_round: function that emits one round into the body.
            goes_on: function that emits whether another round follows; None makes all rounds.
        """
        body = ir.Graph([], [], nodes=[], opset_imports=self.graph.opset_imports, name=f"{self.label}_round")
        inside = Flow(body, f"{self.label}/loop_{next(self._bodies)}")
        number = inside.declare_input("round", INT64, [])
        condition = inside.declare_input("again", BOOL, [])
        given = [
            inside.declare_input(f"carried_{index}", value.dtype or FLOAT, value.shape)
            for index, value in enumerate(carried)
        ]
        kept, stacked = emit_round(inside, number, given)
        condition = condition if goes_on is None else goes_on(inside, kept)
        inside.outputs_are([condition, *kept, *stacked])
        for result, start in zip(body.outputs[1:], carried, strict=False):
            if result.shape is None:
                result.shape = start.shape
        trips = self.integer(count) if isinstance(count, int) else count
        node = ir.Node(
            "",
            "Loop",
            [trips, self.constant(True, BOOL), *carried],
            [ir.AttrGraph("body", body)],
            num_outputs=len(kept) + len(stacked),
            name=f"{inside.label}",
        )
        self.place(node)
        for index, (output, result) in enumerate(zip(node.outputs, body.outputs[1:], strict=True)):
            output.name, output.type = f"{inside.label}:{index}", result.type
            if result.shape is not None:
                rounds = count if isinstance(count, int) and goes_on is None else None
                output.shape = result.shape if index < len(kept) else ir.Shape([rounds, *result.shape])
        outputs = list(node.outputs)
        return LoopResult(outputs[: len(kept)], outputs[len(kept) :])

    def branch(
        self,
        condition: ir.Value,
        then: Callable[[Flow], Sequence[ir.Value]],
        otherwise: Callable[[Flow], Sequence[ir.Value]],
    ) -> list[ir.Value]:
        """Emits an If over a boolean value () or (1,); both branches emit as many values, of the same types."""
        graphs, results = [], []
        for name, emit_branch in (("then", then), ("else", otherwise)):
            graph = ir.Graph([], [], nodes=[], opset_imports=self.graph.opset_imports, name=f"{self.label}_{name}")
            inside = Flow(graph, f"{self.label}/{name}_{next(self._bodies)}")
            results.append(emit_branch(inside))
            inside.outputs_are(results[-1])
            graphs.append(ir.AttrGraph(f"{name}_branch", graph))
        name = f"{self.label}/if_{next(self._bodies)}"
        node = ir.Node("", "If", [condition], graphs, num_outputs=len(results[0]), name=name)
        self.place(node)
        for index, (output, one, other) in enumerate(zip(node.outputs, *results, strict=True)):
            output.name, output.type = f"{name}:{index}", one.type
            if one.shape is not None and other.shape is not None and len(one.shape) == len(other.shape):
                lengths = zip(one.shape, other.shape, strict=True)
                output.shape = ir.Shape([mine if mine == theirs else None for mine, theirs in lengths])
        return list(node.outputs)

    def declare_input(self, name: str, dtype: ir.DataType, shape: Any) -> ir.Value:
        """Adds an input to the graph and returns it."""
        value = ir.Value(
            name=f"{self.label}/{name}",
            type=ir.TensorType(dtype),
            shape=None if shape is None else ir.Shape(shape),
        )
        self.graph.inputs.append(value)
        return value

    def outputs_are(self, values: Sequence[ir.Value]) -> None:
        """Makes values the graph's outputs, each through a node of its own: no input or outer value may be one."""
        for index, value in enumerate(values):
            node = self.new_node("Identity", [value], {}, "", 1)
            self.place(node)
            result = node.outputs[0]
            result.name, result.type, result.shape = f"{self.label}/output_{index}", value.type, value.shape
            self.graph.outputs.append(result)


def as_array(value: ir.Value) -> np.ndarray:
    """Returns the content of an initializer."""
    assert value.const_value is not None
    return value.const_value.numpy()
