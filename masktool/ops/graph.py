"""The graph that mask rules work on: which value carries which mask, and how to emit nodes.

This is an abstract interpretation. Every value that depends on the image carries a :class:`Masked` state; a value
without one (a weight, a pooled vector, a gate) has no place in the image and needs no mask. The numbers under a 0 of
the mask are arbitrary but finite: they are set to 0 by the next operator that looks beyond its own pixel, not by the
operator that made them. So convolution, addition and activation stay adjacent, and ONNX Runtime fuses them exactly as
in the plain graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN
from masktool.ops.registry import RuleError


@dataclasses.dataclass(frozen=True)
class Masked:
    """The mask state of one value.

    Attributes:
        mask: (M, 1, h, w) float, always in this layout, whatever that of the value.
        axes: the two axes of the value, in ascending order, on which the mask's two last axes lie.
        zeroed: whether the value is known to be 0 wherever the mask is 0.
    """

    mask: ir.Value
    axes: tuple[int, int] = (2, 3)
    zeroed: bool = False

    def replace(self, **changes: Any) -> Masked:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class MaskedGraph:
    """A graph under rewriting: states of its values, and the means to emit nodes around the node at hand."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.node: ir.Node | None = None
        """The node whose rule runs; what is emitted goes in front of it."""
        self._states: dict[ir.Value, Masked] = {}
        self._emitted: dict[tuple[Any, ...], ir.Node] = {}
        self._count = 0
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def state(self, value: ir.Value | None) -> Masked | None:
        """Returns the mask state of a value; None where no mask belongs to it."""
        return None if value is None else self._states.get(value)

    def set_state(self, value: ir.Value, state: Masked | None) -> None:
        """Says which mask a value carries."""
        if state is None:
            self._states.pop(value, None)
        else:
            self._states[value] = state

    def constant(self, value: Any, dtype: ir.DataType) -> ir.Value:
        """Returns an initializer that holds ``value``, one per distinct content."""
        array = np.asarray(value, dtype=dtype.numpy())
        key = (array.tobytes(), array.shape, dtype)
        if key not in self._constants:
            name = f"masktool_constant_{len(self._constants)}"
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
        """Emits a node in front of the current one and returns its output; the same request twice is one node."""
        return self._emit(op_type, inputs, attributes, "", 1).outputs[0]

    def call(self, function: str, *inputs: ir.Value, num_outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """Emits a call of a model-local function in front of the current node and returns its outputs."""
        return self._emit(function, inputs, attributes, FUNCTION_DOMAIN, num_outputs).outputs

    def _emit(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], domain: str, num_outputs: int
    ) -> ir.Node:
        key = (op_type, domain, *inputs, *sorted((name, str(value)) for name, value in attributes.items()))
        if key not in self._emitted:
            assert self.node is not None
            self._emitted[key] = self._new_node(op_type, inputs, attributes, domain, num_outputs)
            self.graph.insert_before(self.node, self._emitted[key])
        return self._emitted[key]

    def emit_after(self, output: ir.Value, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Emits a node behind the current one whose result takes the place of ``output`` everywhere else.

        ``output`` is one of the ``inputs``; the result has its name, type and shape.
        """
        assert self.node is not None
        node = self._new_node(op_type, inputs, attributes, "", 1)
        self.graph.insert_after(self.node, node)
        result = node.outputs[0]
        result.shape, result.type = output.shape, output.type
        for user, index in tuple(output.uses()):
            if user is not node:
                user.replace_input_with(index, result)
        for index, graph_output in enumerate(self.graph.outputs):
            if graph_output is output:
                self.graph.outputs[index] = result
        result.name, output.name = output.name, f"{output.name}_unmasked"
        return result

    def _new_node(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], domain: str, num_outputs: int
    ) -> ir.Node:
        assert self.node is not None
        self._count += 1
        label = f"masktool/{self.node.name}/{op_type}_{self._count}"
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=num_outputs, name=label)
        for index, output in enumerate(node.outputs):
            output.name = f"{label}:{index}"
            output.type = inputs[0].type if inputs and inputs[0] is not None else None
        return node

    # What several rules share

    def aligned_mask(self, value: ir.Value) -> ir.Value:
        """Returns the value's mask in a shape that broadcasts against it, in any layout, and in its element type."""
        state = self._states[value]
        rank = rank_of(value)
        mask = state.mask
        if rank != 4 or state.axes != (2, 3):
            mask = self.emit("Squeeze", mask, self.constant([1], ir.DataType.INT64))
            others = [axis for axis in range(1, rank) if axis not in state.axes]
            mask = self.emit("Unsqueeze", mask, self.constant(others, ir.DataType.INT64)) if others else mask
        return mask

    def kept(self, value: ir.Value) -> ir.Value:
        """Returns a boolean tensor, aligned with the value: whether its place is kept at all."""
        return self.positive(self.aligned_mask(value))

    def positive(self, value: ir.Value) -> ir.Value:
        """Returns a boolean tensor: where a value is greater than 0."""
        result = self.emit("Greater", value, self.constant(0, dtype_of(value)))
        result.type = ir.TensorType(ir.DataType.BOOL)
        return result

    def weighted(self, value: ir.Value) -> ir.Value:
        """Returns value · mask."""
        return self._shaped_as(value, self.emit("Mul", value, self.aligned_mask(value)))

    def zeroed(self, value: ir.Value) -> ir.Value:
        """Returns the value with 0 wherever its mask is 0; where that is known already, the value itself."""
        state = self.state(value)
        if state is None or state.zeroed:
            return value
        return self._shaped_as(value, self.emit("Mul", value, self.emit("Sign", self.aligned_mask(value))))

    def replaced(self, value: ir.Value, empty: float) -> ir.Value:
        """Returns the value with ``empty`` wherever its mask is 0, whatever stands there (0 · NaN is NaN)."""
        result = self.emit("Where", self.kept(value), value, self.constant(empty, dtype_of(value)))
        result.type = value.type
        return self._shaped_as(value, result)

    def _shaped_as(self, value: ir.Value, result: ir.Value) -> ir.Value:
        result.shape = value.shape
        return result


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


def spatial_sizes(value: ir.Value, state: Masked) -> tuple[int, int]:
    """Returns height and width of a masked value; RuleError where they are not fixed."""
    sizes = sizes_of(value)
    height, width = sizes[state.axes[0]], sizes[state.axes[1]]
    if height is None or width is None:
        raise RuleError(f"height and width of {value.name!r} are not fixed: {value.shape}")
    return height, width


def input_at(node: ir.Node, index: int) -> ir.Value:
    """Returns a required input of a node."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise RuleError(f"input {index} is missing")
    return value


def constant_of(node: ir.Node, index: int, what: str) -> np.ndarray | None:
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
