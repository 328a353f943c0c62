"""Emits nodes into a graph under rewriting, and reads what is known of the graph's values."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN
from masktool.ops.errors import RuleError

Length = int | str | None
"""The length of an axis: a number, the name of a symbolic length, or None where unknown."""


RESULT_TYPES = {
    **dict.fromkeys(
        ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"), ir.DataType.BOOL
    ),
    "ArgMax": ir.DataType.INT64,
    "Shape": ir.DataType.INT64,
}
"""Element types of the results of operators whose result is not of their first input's type."""

HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""Types of half precision: ONNX Runtime adds nothing up in them on the CPU, and they hold no large numbers."""
LARGEST_SLOPE = 3e38
"""The slope of a HardSigmoid that is a step: it takes every normal float32 number beyond 1."""
TINY_BETA = -1e-37
"""Stands for 0 in a HardSigmoid: too small to change any sum in float32, and not so small that it would become 0. Of
OpenVINO's readers one takes 0 for "not given", which means 0.5."""
INTEGER_TYPES = frozenset(ir.DataType[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (8, 16, 32, 64))
CHOOSABLE = {
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
    ir.DataType.UINT64: ir.DataType.INT64,
}
"""For what ONNX Runtime's Where does not take on the CPU: a type that holds the same numbers or bits."""


class GraphBuilder(abc.ABC):
    """Emits nodes into a graph; where they stand is up to the subclass."""

    prefix = "masktool"
    """What the names of its constants begin with."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._emitted: dict[tuple[Any, ...], ir.Node] = {}
        self._count = 0
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What the names of emitted nodes begin with."""

    @abc.abstractmethod
    def place(self, node: ir.Node) -> None:
        """Puts an emitted node into the graph."""

    def constant(self, value: Any, dtype: ir.DataType) -> ir.Value:
        """Returns an initializer that holds ``value``; the same content twice is one initializer."""
        try:
            array = np.asarray(value, dtype=dtype.numpy())
        except OverflowError as error:
            raise RuleError(
                f"it computes on integers ({dtype.name.lower()}), among which there is no {value}"
            ) from error
        key = (array.tobytes(), array.shape, dtype)
        if key not in self._constants:
            name = f"{self.prefix}_constant_{len(self._constants)}"
            while name in self.graph.initializers:  # of a graph that gradients were added to before
                name += "_"
            constant = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(dtype),
                const_value=ir.tensor(array, name=name),
            )
            self.graph.register_initializer(constant)
            self._constants[key] = constant
        return self._constants[key]

    def emit(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Emits a node and returns its output; the same request twice is one node."""
        return self._emit(op_type, inputs, attributes, "", 1).outputs[0]

    def call(self, function: str, *inputs: ir.Value, num_outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """Emits a call of a model-local function and returns its outputs."""
        return self._emit(function, inputs, attributes, FUNCTION_DOMAIN, num_outputs).outputs

    def _emit(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], domain: str, num_outputs: int
    ) -> ir.Node:
        key = (op_type, domain, *inputs, *((name, attribute_key(attributes[name])) for name in sorted(attributes)))
        if key not in self._emitted:
            self._emitted[key] = self.new_node(op_type, inputs, attributes, domain, num_outputs)
            self.place(self._emitted[key])
        return self._emitted[key]

    def new_node(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], domain: str, num_outputs: int
    ) -> ir.Node:
        """Returns a node that is in no graph yet, with names and, for its outputs, the type of its first input."""
        self._count += 1
        label = f"{self.label}/{op_type}_{self._count}"
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=num_outputs, name=label)
        for index, output in enumerate(node.outputs):
            output.name = f"{label}:{index}"
            output.type = type_of_result(op_type, inputs, attributes)
        return node

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Returns a value in another element type."""
        if dtype_of(value) == dtype:
            return value
        return self.emit("Cast", value, to=dtype.value)

    def filled_like(self, value: ir.Value, number: float) -> ir.Value:
        """Returns one number in the shape and type of a value."""
        return self.emit("Expand", self.constant(number, dtype_of(value)), self.emit("Shape", value))

    def step(self, value: ir.Value) -> ir.Value:
        """Returns 1 where a value is positive, else 0, in its own type.

        In float32 it is a HardSigmoid, which has a kernel on every device, where Sign has not, and stays in the blocked
        layout of ONNX Runtime's convolutions; a subnormal number gives less than 1. Other types do not hold its slope,
        or have no such kernel.
        """
        if dtype_of(value) != ir.DataType.FLOAT:
            return self.as_type(self.positive(value), dtype_of(value))
        return self.emit("HardSigmoid", value, alpha=LARGEST_SLOPE, beta=TINY_BETA)

    def sign(self, value: ir.Value) -> ir.Value:
        """Returns 1 where a value is positive, -1 where it is negative, else 0."""
        return self.emit("Sub", self.step(value), self.step(self.emit("Neg", value)))

    def least(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Returns the smaller of two values at each place: of equal ones the left."""
        return self.emit("Where", self.emit("Less", right, left), right, left)

    def most(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Returns the larger of two values at each place: of equal ones the left."""
        return self.emit("Where", self.emit("Less", left, right), right, left)

    def bounded(self, value: ir.Value, *, low: float | None = None, high: float | None = None) -> ir.Value:
        """Returns a value cut to bounds."""
        bounds = (None if bound is None else self.constant(bound, dtype_of(value)) for bound in (low, high))
        given = list(bounds)
        return self.emit("Clip", value, *(given if given[1] is not None else given[:1]))

    def divisor(self, value: ir.Value) -> ir.Value:
        """Returns a value with 1 wherever it is not positive, so that others can be divided by it."""
        return self.emit("Where", self.positive(value), value, self.constant(1, dtype_of(value)))

    def length_of(self, value: ir.Value, axis: int) -> ir.Value:
        """Returns the length of one axis of a value, as an int64 tensor of one element that is found at run time."""
        return self.emit("Shape", value, start=axis, end=axis + 1)

    def positive(self, value: ir.Value) -> ir.Value:
        """Returns a boolean tensor: where a value is greater than 0."""
        return self.emit("Greater", value, self.constant(0, dtype_of(value)))


def attribute_key(value: Any) -> Hashable:
    """Returns a key that tells an attribute's value from others; for tensors, their type, shape and bytes."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(attribute_key, value))
    if isinstance(value, np.integer):
        return int, repr(int(value))
    if not isinstance(value, int | float | str) and isinstance(value, ir.TensorProtocol):  # a protocol's check is slow
        return value.dtype, tuple(value.shape), value.tobytes()
    return type(value), repr(value)


def type_of_result(
    op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]
) -> ir.TypeProtocol | None:
    """Returns the type of an emitted node's output: mostly that of its first input."""
    if op_type in RESULT_TYPES:
        return ir.TensorType(RESULT_TYPES[op_type])
    if op_type == "Cast":
        return ir.TensorType(ir.DataType(attributes["to"]))
    if op_type == "ConstantOfShape":
        return ir.TensorType(attributes["value"].dtype)
    first = inputs[1 if op_type == "Where" else 0]
    return None if first is None else first.type


def dtype_of(value: ir.Value) -> ir.DataType:
    """Returns the element type of a value; RuleError when shape inference could not tell."""
    if value.dtype is None:
        raise RuleError(f"the element type of {value.name!r} is unknown")
    return value.dtype


def rank_of(value: ir.Value) -> int:
    """Returns the number of axes of a value; RuleError when shape inference could not tell."""
    if value.shape is None:
        raise RuleError(f"the shape of {value.name!r} is unknown")
    return len(value.shape)


def sizes_of(value: ir.Value) -> tuple[int | None, ...]:
    """Returns the length of every axis of a value; None for a symbolic or unknown one."""
    rank_of(value)
    assert value.shape is not None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def fixed_sizes(value: ir.Value) -> tuple[int, ...]:
    """Returns the length of every axis of a value; that of the first axis is -1 where it is open.

    Raises:
        RuleError: another length is not fixed.
    """
    first, *others = sizes_of(value)
    if None in others:
        known = ["?" if size is None else size for size in sizes_of(value)]
        raise RuleError(f"the lengths of {described(value)} are not fixed: ({', '.join(map(str, known))})")
    return (-1 if first is None else first, *(length for length in others if length is not None))


def described(value: ir.Value) -> str:
    """Returns how a message names a value: one that masktool emitted, by the network's node that it serves."""
    node = network_name(value.name or "")
    return repr(value.name) if node is None else f"the map or mask at node {node!r}"


def network_name(name: str) -> str | None:
    """Returns the name of the network's node that an emitted node or value serves; None for any other name."""
    start = f"{GraphBuilder.prefix}/"
    return name[len(start) :].rpartition("/")[0] or None if name.startswith(start) else None


def dims_of(value: ir.Value) -> list[Length]:
    """Returns the length of every axis of a value: a number, the name of a symbolic length, or None where unknown."""
    rank_of(value)
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def input_at(node: ir.Node, index: int) -> ir.Value:
    """Returns a required input of a node."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise RuleError(f"input {index} is missing")
    return value


def constant_input(node: ir.Node, index: int, what: str) -> np.ndarray | None:
    """Returns a constant input as an array; None where the node leaves it out.

    Raises:
        RuleError: the input is computed at run time.
    """
    if index >= len(node.inputs) or node.inputs[index] is None:
        return None
    value = input_at(node, index)
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or value.is_graph_input():
        raise RuleError(f"{what} is computed at run time")
    return tensor.numpy()


def normalised_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Returns axes with negative ones counted from the end."""
    return [int(axis) + rank if axis < 0 else int(axis) for axis in axes]
