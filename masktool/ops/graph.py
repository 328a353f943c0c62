"""The graph that mask rules work on: which value carries which mask, and how to emit nodes.

This is an abstract interpretation. Every value that depends on the image carries a :class:`Masked` state; a value
without one (a weight, a pooled vector, a gate) has no place in the image and needs no mask. The numbers under a 0 of
the mask are arbitrary but finite: they are set to 0 by the next operator that looks beyond its own pixel, not by the
operator that made them. So convolution, addition and activation stay adjacent, and ONNX Runtime fuses them exactly as
in the plain graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN, Masking
from masktool.ops.registry import RuleError

Length = int | str | None
"""Of an axis: a number, the name of a symbolic length, None where unknown."""
Factor = tuple[Length, bool]
"""Of an axis: its length, and whether it holds places."""
IMAGES: Factor = (None, False)
"""What stands for the images among the factors of the batch axis."""


@dataclasses.dataclass(frozen=True)
class Masked:
    """The mask state of one value.

    Attributes:
        mask: float32, of the value's rank. It has the value's length on ``axes``, the masks' batch (or the value's) on
            the batch axis, and length 1 elsewhere, so that it broadcasts against the value in any layout.
        axes: the axes of the value along which the mask varies within one image, in ascending order.
        zeroed: whether the value is known to be 0 wherever the mask is 0.
        batch: the axis on which the images lie.
        merged: by axis, the factors that a Reshape has merged there, where not all of them hold places; neighbours of
            one sort are one factor. ``axes`` holds the batch axis only if places are merged with the images.
    """

    mask: ir.Value
    axes: tuple[int, ...] = (2, 3)
    zeroed: bool = False
    batch: int = 0
    merged: Mapping[int, tuple[Factor, ...]] = dataclasses.field(default_factory=dict)

    def replace(self, **changes: Any) -> Masked:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def moved(self, where: Callable[[int], int], **changes: Any) -> Masked:
        """Returns a copy with every axis sent to ``where(axis)``."""
        axes = tuple(sorted(where(axis) for axis in self.axes))
        merged = {where(axis): factors for axis, factors in self.merged.items()}
        return self.replace(axes=axes, batch=where(self.batch), merged=merged, **changes)

    def recut(self, mask: ir.Value, along: Iterable[int], **changes: Any) -> Masked:
        """Returns a copy with another mask, which has other places along some axes."""
        cut = set(along)
        merged = {axis: factors for axis, factors in self.merged.items() if axis not in cut}
        return self.replace(mask=mask, merged=merged, **changes)

    @property
    def is_image(self) -> bool:
        """Whether the mask is (M, 1, h, w): the images first, places on the last two of four axes."""
        return self.batch == 0 and not self.merged and bool(self.axes) and set(self.axes) <= {2, 3}


class MaskedGraph:
    """A graph under rewriting: states of its values, and the means to emit nodes around the node at hand."""

    def __init__(self, graph: ir.Graph, masking: Masking = "layer") -> None:
        self.graph = graph
        self.masking: Masking = masking
        self.node: ir.Node | None = None
        """The node whose rule runs; what is emitted goes in front of it."""
        self._states: dict[ir.Value, Masked] = {}
        self._behind: dict[ir.Node, ir.Node] = {}
        """The last node that was emitted behind a node."""
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

        ``output`` is one of the ``inputs``. The result has its name, type and shape.
        """
        assert self.node is not None
        node = self._new_node(op_type, inputs, attributes, "", 1)
        self.graph.insert_after(self._behind.get(self.node, self.node), node)
        self._behind[self.node] = node
        return self.replace_output(output, node.outputs[0])

    def replace_output(self, output: ir.Value, result: ir.Value) -> ir.Value:
        """Puts ``result`` in the place of ``output`` everywhere but where it is made of it; returns ``result``."""
        result.shape, result.type = output.shape, output.type
        for user, index in tuple(output.uses()):
            if result.producer() is not user:
                user.replace_input_with(index, result)
        for index, graph_output in enumerate(self.graph.outputs):
            if graph_output is output:
                self.graph.outputs[index] = result
        self._count += 1
        result.name, output.name = output.name, f"{output.name}_unmasked_{self._count}"
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
        """Returns the value's mask, which broadcasts against it, in its element type."""
        return self.as_type(self._states[value].mask, dtype_of(value))

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Returns a value in another element type."""
        if dtype_of(value) == dtype:
            return value
        result = self.emit("Cast", value, to=dtype.value)
        result.type = ir.TensorType(dtype)
        return result

    def moved_mask(self, mask: ir.Value, places: Mapping[int, int], rank: int, new_rank: int) -> ir.Value:
        """Returns a mask whose axes stand elsewhere; every other axis has length 1.

        Args:
            mask: of ``rank`` axes, with length 1 on every axis that is no key of ``places``.
            places: new axis by old axis.
            rank: of the mask.
            new_rank: of the result.
        """
        if rank == new_rank and all(old == new for old, new in places.items()):
            return mask
        old_order = sorted(places)
        new_order = sorted(old_order, key=places.__getitem__)
        dropped = [axis for axis in range(rank) if axis not in places]
        added = [axis for axis in range(new_rank) if axis not in places.values()]
        if dropped:
            mask = self.emit("Squeeze", mask, self.constant(dropped, ir.DataType.INT64))
        if new_order != old_order:
            mask = self.emit("Transpose", mask, perm=[old_order.index(axis) for axis in new_order])
        if added:
            mask = self.emit("Unsqueeze", mask, self.constant(added, ir.DataType.INT64))
        return mask

    def mask_of(self, value: ir.Value) -> ir.Value:
        """Returns the mask of a value that is known to carry one."""
        return self._states[value].mask

    def long_as_images(self, value: ir.Value) -> ir.Value:
        """Returns the value's mask, repeated where there is one mask for many images."""
        batch, one = self._states[value].batch, self.constant([1], ir.DataType.INT64)
        lengths = [self.length_of(value, axis) if axis == batch else one for axis in range(rank_of(value))]
        return self.emit("Expand", self.mask_of(value), self.emit("Concat", *lengths, axis=0))

    def ones_like(self, mask: ir.Value) -> ir.Value:
        """Returns ones in the shape and type of a mask."""
        ones = self.emit("ConstantOfShape", self.emit("Shape", mask), value=ir.tensor([1], dtype=dtype_of(mask)))
        ones.type = mask.type
        return ones

    def divisor(self, value: ir.Value) -> ir.Value:
        """Returns a value that may be divided by: 1 where it is 0."""
        divisor = self.emit("Where", self.positive(value), value, self.constant(1, dtype_of(value)))
        divisor.type = value.type
        return divisor

    def full_along(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Returns the value's mask with the value's own length on further ``axes``."""
        mask = self._states[value].mask
        missing = [axis for axis in axes if axis not in self._states[value].axes]
        lengths = [sizes_of(value)[axis] if axis in missing else 1 for axis in range(rank_of(value))]
        if all(length == 1 for length in lengths):
            return mask
        if None not in lengths:
            return self.emit("Expand", mask, self.constant(lengths, ir.DataType.INT64))
        one = self.constant([1], ir.DataType.INT64)
        parts = [self.length_of(value, axis) if axis in missing else one for axis in range(rank_of(value))]
        return self.emit("Expand", mask, self.emit("Concat", *parts, axis=0))

    def length_of(self, value: ir.Value, axis: int) -> ir.Value:
        """Returns the length of one axis, as an int64 tensor of one element that is found at run time."""
        length = self.emit("Shape", value, start=axis, end=axis + 1)
        length.type = ir.TensorType(ir.DataType.INT64)
        return length

    def kept(self, value: ir.Value) -> ir.Value:
        """Returns a boolean tensor, aligned with the value: whether its place is kept at all."""
        return self.positive(self._states[value].mask)

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


def share_batch(states: Sequence[Masked]) -> bool:
    """Whether values have their images on the same axis, and the same things merged with them."""
    first = states[0]
    return all(
        state.batch == first.batch and state.merged.get(state.batch) == first.merged.get(first.batch)
        for state in states
    )


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


def dims_of(value: ir.Value) -> list[Length]:
    """Returns the length of every axis: a number, the name of a symbolic length, or None for an unknown one."""
    rank_of(value)
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def state_of_input(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of the node's first input, the only one that may depend on the image.

    Raises:
        RuleError: another input depends on the image.
    """
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    return state


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
