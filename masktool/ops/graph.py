"""The graph that mask rules work on: which value carries which mask.

This is an abstract interpretation. Every value that depends on the image carries a :class:`Masked` state; a value
without one (a weight, a pooled vector, a gate) has no place in the image and needs no mask. The numbers under a 0 of
the mask are arbitrary but finite: they are set to 0 by the next operator that looks beyond its own pixel, not by the
operator that made them. So convolution, addition and activation stay adjacent, and ONNX Runtime fuses them exactly as
in the plain graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from masktool.contract import Masking, SamplerRule
from masktool.ops.blocked import lies_in_blocks, spread_over_channels
from masktool.ops.builder import CHOOSABLE, INTEGER_TYPES, GraphBuilder, Length, dtype_of, input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.mask_order import MaskOrder
from masktool.ops.rules import RuleTable

MaskRule = Callable[["MaskedGraph", ir.Node], None]
MASK_RULES: RuleTable[MaskRule] = RuleTable("mask rule")
mask_rule = MASK_RULES.register

Factor = tuple[Length, bool]
"""A factor of an axis: its length, and whether it holds places."""
IMAGES: Factor = (None, False)
"""The factor that stands for the images on the batch axis."""


@dataclasses.dataclass(frozen=True)
class Masked:
    """The mask state of one value.

    Attributes:
        mask: the mask, float32, of the value's rank. It has the value's length on ``axes``, the masks' batch (or the
            value's) on the batch axis, and length 1 elsewhere, so that it broadcasts against the value in any layout.
        axes: the axes of the value along which the mask varies within one image, in ascending order.
        zeroed: whether the value is known to be 0 wherever the mask is 0.
        batch: the axis on which the images lie.
        merged: the factors that a Reshape has merged into an axis, by axis, where not all of them hold places;
            neighbours of one sort are one factor. ``axes`` holds the batch axis only if places are merged with the
            images.
    """

    mask: ir.Value
    axes: tuple[int, ...] = (2, 3)
    zeroed: bool = False
    batch: int = 0
    merged: Mapping[int, tuple[Factor, ...]] = dataclasses.field(default_factory=dict)

    def replace(self, **changes: Any) -> Masked:
        """Returns a copy of the state with some fields changed."""
        return dataclasses.replace(self, **changes)

    def moved(self, where: Callable[[int], int], **changes: Any) -> Masked:
        """Returns a copy of the state with every axis moved to ``where(axis)``."""
        axes = tuple(sorted(where(axis) for axis in self.axes))
        merged = {where(axis): factors for axis, factors in self.merged.items()}
        return self.replace(axes=axes, batch=where(self.batch), merged=merged, **changes)

    def recut(self, mask: ir.Value, along: Iterable[int], **changes: Any) -> Masked:
        """Returns a copy of the state with a mask that has other places along some axes; the batch is never cut."""
        cut = set(along) - {self.batch}
        merged = {axis: factors for axis, factors in self.merged.items() if axis not in cut}
        return self.replace(mask=mask, merged=merged, **changes)

    @property
    def is_image(self) -> bool:
        """Whether the mask is (M, 1, ...): images on axis 0, perhaps with windows merged in, places behind axis 1."""
        return self.batch == 0 and 1 not in self.axes and bool(self.axes) and not self.mixed

    @property
    def mixed(self) -> set[int]:
        """The axes, but for that of the images, on which places lie with other factors and not as a map has them."""
        return {axis for axis, parts in self.merged.items() if axis != self.batch and not is_enlarged(parts)}


def is_enlarged(parts: Sequence[Factor]) -> bool:
    """Whether each place of an axis became several side by side, as in a map of a higher resolution."""
    return [holds_places for _, holds_places in parts] == [True, False]


class MaskedGraph(GraphBuilder):
    """A graph under rewriting: states of its values, and the means to emit nodes around the node at hand."""

    def __init__(self, graph: ir.Graph, masking: Masking = "layer", rule: SamplerRule | None = None) -> None:
        super().__init__(graph)
        self.masking: Masking = masking
        self.rule: SamplerRule | None = rule
        """What keeps an output of a sampler narrower than its stride; None, as under ``partial``: what it looks at."""
        self.order = MaskOrder()
        self.node: ir.Node | None = None
        """The node whose rule runs; what is emitted goes in front of it."""
        self._states: dict[ir.Value, Masked] = {}
        self._behind: dict[ir.Node, ir.Node] = {}
        """The last node that was emitted behind a node."""

    @property
    def label(self) -> str:
        """The name of the node at hand, under masktool's."""
        assert self.node is not None
        return f"masktool/{self.node.name}"

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node in front of the node at hand."""
        assert self.node is not None
        self.graph.insert_before(self.node, node)

    def state(self, value: ir.Value | None) -> Masked | None:
        """Returns the mask state of a value; None where no mask belongs to it."""
        return None if value is None else self._states.get(value)

    def set_state(self, value: ir.Value, state: Masked | None) -> None:
        """Sets the mask state of a value; None where no mask belongs to it."""
        if state is None:
            self._states.pop(value, None)
        else:
            self._states[value] = state

    def emit_after(self, output: ir.Value, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Emits a node behind the current one whose result takes the place of ``output`` everywhere else.

        ``output`` is one of the ``inputs``. The result has the name, type and shape of ``output``.
        """
        assert self.node is not None
        node = self.new_node(op_type, inputs, attributes, "", 1)
        self.graph.insert_after(self._behind.get(self.node, self.node), node)
        self._behind[self.node] = node
        return self.replace_output(output, node.outputs[0])

    def replace_output(self, output: ir.Value, result: ir.Value) -> ir.Value:
        """Puts ``result`` in the place of ``output`` in all nodes but its own producer; returns ``result``."""
        for user, index in tuple(output.uses()):
            if result.producer() is not user:
                user.replace_input_with(index, result)
        return self._take_name(output, result)

    def return_instead(self, output: ir.Value, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Emits a node at the end whose result the graph returns in the place of ``output``; no other use changes."""
        node = self.new_node(op_type, inputs, attributes, "", 1)
        self.graph.append(node)
        return self._take_name(output, node.outputs[0])

    def _take_name(self, output: ir.Value, result: ir.Value) -> ir.Value:
        """Gives ``result`` the name, type and shape of ``output``, and its place among the graph's outputs."""
        result.shape, result.type = output.shape, output.type
        for index, graph_output in enumerate(self.graph.outputs):
            if graph_output is output:
                self.graph.outputs[index] = result
        self._count += 1
        result.name, output.name = output.name, f"{output.name}_unmasked_{self._count}"
        return result

    # What several rules share

    def aligned_mask(self, value: ir.Value) -> ir.Value:
        """Returns the value's mask, which broadcasts against it, in its element type.

        Raises:
            RuleError: the element type is an integer, which no soft mask fits.
        """
        if dtype_of(value) in INTEGER_TYPES:
            raise RuleError("it computes on integers; cast the image to float in front of it")
        return self.as_type(self._states[value].mask, dtype_of(value))

    def moved_mask(self, mask: ir.Value, places: Mapping[int, int], rank: int, new_rank: int) -> ir.Value:
        """Returns a mask with its axes moved; every axis that none is moved to has length 1.

        Args:
            mask: the mask, of ``rank`` axes, with length 1 on every axis that is no key of ``places``.
            places: the new axis by the old axis.
            rank: the number of axes of the mask.
            new_rank: the number of axes of the result.
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

    def smallest_mask(self, states: Sequence[Masked]) -> ir.Value:
        """Returns the smallest of the masks of some states at each place, all aligned with one value."""
        masks = self.order.smallest_of(masks_of(states)) if vary_alike(states) else masks_of(states)
        smallest = functools.reduce(self.least, masks)
        self.order.note_intersection(smallest, masks)
        return smallest

    def largest_mask(self, states: Sequence[Masked]) -> ir.Value:
        """Returns the largest of the masks of some states at each place, all aligned with one value."""
        masks = self.order.largest_of(masks_of(states)) if vary_alike(states) else masks_of(states)
        largest = functools.reduce(self.most, masks)
        self.order.note_union(largest, masks)
        return largest

    def known_state(self, value: ir.Value) -> Masked:
        """Returns the state of a value that is known to carry a mask.

        Raises:
            RuleError: the value carries no mask.
        """
        state = self._states.get(value)
        if state is None:
            raise RuleError(f"the mask of {value.name!r} is not known")
        return state

    def long_as_images(self, value: ir.Value) -> ir.Value:
        """Returns the value's mask, repeated for every image where there is one mask for many images."""
        batch, one = self._states[value].batch, self.constant([1], ir.DataType.INT64)
        lengths = [self.length_of(value, axis) if axis == batch else one for axis in range(rank_of(value))]
        mask = self.known_state(value).mask
        repeated = self.emit("Expand", mask, self.emit("Concat", *lengths, axis=0))
        if mask.shape is not None and value.shape is not None:
            repeated.shape = ir.Shape([*mask.shape[:batch], value.shape[batch], *mask.shape[batch + 1 :]])
        return repeated

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

    def kept(self, value: ir.Value) -> ir.Value:
        """Returns a boolean tensor, aligned with the value: whether its place is kept at all."""
        return self.positive(self._states[value].mask)

    def weighted(self, value: ir.Value) -> ir.Value:
        """Returns value · mask."""
        return self._shaped_as(value, self.emit("Mul", value, self.beside(value, self.aligned_mask(value))))

    def zeroed(self, value: ir.Value) -> ir.Value:
        """Returns the value with 0 wherever its mask is 0; where that is known already, the value itself."""
        state = self.state(value)
        if state is None or state.zeroed:
            return value
        if dtype_of(value) in INTEGER_TYPES:
            return self.replaced(value, empty=0)
        return self._shaped_as(value, self.emit("Mul", value, self.beside(value, self.kept_share(value))))

    def beside(self, value: ir.Value, mask: ir.Value) -> ir.Value:
        """Returns what is to be multiplied with a value, one number per place, in the layout of the value.

        Args:
            value: a value with a mask.
            mask: the numbers, aligned with the value as its mask is.
        """
        state = self.known_state(value)
        varies_with_places = state.is_image and {0, *state.axes} == {0, 2, 3}
        return spread_over_channels(self, mask, value) if varies_with_places and lies_in_blocks(value) else mask

    def kept_share(self, value: ir.Value) -> ir.Value:
        """Returns 1 where the value's place is kept at all, else 0, aligned with the value and in its element type."""
        return self.as_type(self.step(self._states[value].mask), dtype_of(value))

    def replaced(self, value: ir.Value, empty: float) -> ir.Value:
        """Returns the value with ``empty`` wherever its mask is 0, whatever stands there (0 · NaN is NaN)."""
        dtype = dtype_of(value)
        choosable = CHOOSABLE.get(dtype, dtype)
        chosen = self.emit("Where", self.kept(value), self.as_type(value, choosable), self.constant(empty, choosable))
        return self._shaped_as(value, self.as_type(chosen, dtype))

    def _shaped_as(self, value: ir.Value, result: ir.Value) -> ir.Value:
        result.shape = value.shape
        return result


def masks_of(states: Sequence[Masked]) -> list[ir.Value]:
    """Returns the masks of some states, each once."""
    return list(dict.fromkeys(state.mask for state in states))


def vary_alike(states: Sequence[Masked]) -> bool:
    """Whether the masks of some states have the same axes."""
    return len({state.axes for state in states}) == 1


def share_batch(states: Sequence[Masked]) -> bool:
    """Whether values have their images on the same axis, and the same factors merged with the images."""
    first = states[0]
    return all(
        state.batch == first.batch and state.merged.get(state.batch) == first.merged.get(first.batch)
        for state in states
    )


def state_of_input(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of the node's first input, the only one that may depend on the image.

    Raises:
        RuleError: another input depends on the image.
    """
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    return state
