"""Rewrites a masked network, node by node, into the graph that computes its patches.

1. What depends on neither the image nor the mask is copied; what depends on the image alone, or on a mask of ones, is a
   base value and becomes an input.
2. The mask is a patch of zeros in the windows' frame. A node that reads a patch goes to the rule of its operator, which
   gives a patch (:mod:`.rules`).
3. Without such a rule, or where a patch would hold most of its map, the patches are put into whole maps, and the node
   is copied as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from masktool.embedding.incremental.frames import Frame, Span
from masktool.embedding.incremental.patches import CHANNELS_FIRST, CHANNELS_LAST, Patch, PatchGraph
from masktool.explainers.incremental import BaseInput, Pair, Windows
from masktool.ops.builder import dtype_of, sizes_of

WHOLE_SHARE = 0.6
"""Share of a map from which on it is computed whole: what is around a patch, and bringing it there, costs the rest."""
NUMBER_COST = 8
"""What a number costs that is read and written, in multiplications of a convolution."""
MAP_RANK = 4


class NotLocalError(Exception):
    """A node cannot be computed within a frame; it is then computed on whole maps."""


State = Patch | ir.Value
"""What is computed of a value that depends on the mask: its patches, or the value (M, ...) as a whole."""
Rule = Callable[["Rewriting", ir.Node], State]
LOCAL_RULES: dict[str, Rule] = {}


class Rewriting:
    """The rewriting of one graph.

    Args:
        graph: the network's graph, without functions, with known shapes for one image.
        image: the name of the image input.
        mask: the name of the mask input.
        windows: the windows.
        known: the numbers that values computed from the mask alone hold everywhere where nothing is missing, by name.
    """

    def __init__(self, graph: ir.Graph, image: str, mask: str, windows: Windows, known: Mapping[str, float]) -> None:
        self.image, self.windows, self.known = image, windows, known
        self.patches = PatchGraph(windows, graph.opset_imports[""])
        self.states: dict[ir.Value, State] = {}
        self.needed: dict[ir.Value, None] = {}
        """The base values that are inputs of the new graph."""
        self.whole_cost = 0
        self._copied: dict[ir.Value, ir.Value] = {}
        self._maps: dict[ir.Value, ir.Value] = {}
        self._fixed = fixed_values(graph)
        source = next(value for value in graph.inputs if value.name == mask)
        self.states[source] = self._missing(source)

    def _missing(self, mask: ir.Value) -> Patch:
        """Returns the patch of the mask: zeros, of which a graph holds one."""
        emit, (height, width) = self.patches, self.windows.window
        zero = emit.constant([[[[0]]]], dtype_of(mask))
        shape = emit.emit("Concat", emit.length_of(emit.corners, 0), emit.ints(1, height, width), axis=0)
        return Patch(emit.emit("Expand", zero, shape), (Span(1, 0, height), Span(1, 0, width)), CHANNELS_FIRST)

    def rewrite(self, node: ir.Node) -> None:
        """Emits a node of the network, on a patch where that is possible; none where no window changes its result."""
        if not any(value in self.states for value in node.inputs if value is not None):
            return
        self.whole_cost += cost_of_node(node, [math.prod(lengths(value)[1:]) for value in node.outputs[:1]])
        rule = LOCAL_RULES.get(node.op_type) if node.domain == "" else None
        try:
            if rule is None or any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
                raise NotLocalError
            self.states[node.outputs[0]] = rule(self, node)
        except NotLocalError:
            self.rewrite_whole(node)

    def rewrite_whole(self, node: ir.Node) -> None:
        """Copies a node as it is, to be computed on whole maps."""
        copied = self.copy(node, [None if value is None else self.whole(value) for value in node.inputs])
        for old, new in zip(node.outputs, copied.outputs, strict=True):
            self.states[old] = new
        self.patches.cost += cost_of_node(node, [math.prod(lengths(value)[1:]) for value in node.outputs[:1]])

    def copy(self, node: ir.Node, inputs: list[ir.Value | None], **changed: Any) -> ir.Node:
        """Emits a node of the network with other inputs; attributes that are changed to None are left out."""
        attributes = {name: attribute for name, attribute in node.attributes.items() if name not in changed}
        given = {name: value for name, value in changed.items() if value is not None}
        copied = ir.node(
            node.op_type, inputs, given, domain=node.domain, num_outputs=len(node.outputs), name=f"patches/{node.name}"
        )
        for name, attribute in attributes.items():
            copied.attributes[name] = attribute
        for old, new in zip(node.outputs, copied.outputs, strict=True):
            new.name, new.type = f"patches/{old.name}", old.type
        self.patches.place(copied)
        return copied

    # What a node reads

    def base(self, value: ir.Value) -> ir.Value:
        """Returns a value that no window changes, whole."""
        if value not in self._fixed:
            self.needed[value] = None
            return self.patches.declare_base(BaseInput(value.name or ""), value)
        if value not in self._copied:
            self._copied[value] = self._copy_constant(value)
        return self._copied[value]

    def _copy_constant(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is not None:
            copied = self.copy(node, [None if each is None else self.base(each) for each in node.inputs])
            return copied.outputs[value.index() or 0]
        new = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
        self.patches.graph.register_initializer(new)
        return new

    def base_rows(self, value: ir.Value, outside: float, axes: tuple[int, int]) -> ir.Value:
        """Returns a map that no window changes, or its base where windows do, as rows."""
        self.needed[value] = None
        base = BaseInput(value.name or "", True, outside, axes == CHANNELS_LAST)
        return self.patches.declare_base(base, value)

    def whole(self, value: ir.Value) -> ir.Value:
        """Returns a value (M, ...) whole: a patch in the base's map."""
        state = self.states.get(value)
        if state is None:
            return self.base(value)
        if not isinstance(state, Patch):
            return state
        if value not in self._maps:
            self.needed[value] = None
            base = self.patches.declare_base(BaseInput(value.name or ""), value)
            self._maps[value] = self.patches.in_map(
                state, base, map_size(value, state.axes), channels(value, state.axes)
            )
            self.patches.cost += NUMBER_COST * math.prod(lengths(value)[1:])
        return self._maps[value]

    def patch_of(self, value: ir.Value | None) -> Patch:
        """Returns the patch of a value; NotLocalError where it has none."""
        state = None if value is None else self.states.get(value)
        if not isinstance(state, Patch):
            raise NotLocalError
        return state

    def extended(self, value: ir.Value, frame: Frame, outside: float | None) -> ir.Value:
        """Returns the patch of a value in another frame, with the base where the window changes nothing.

        Args:
            value: the value.
            frame: the frame.
            outside: the number to put outside the map; None leaves it arbitrary.
        """
        patch, emit = self.patch_of(value), self.patches
        if frame == patch.frame and outside is None:
            return patch.value
        size, count = map_size(value, patch.axes), channels(value, patch.axes)
        placed = emit.in_frame(patch, frame, count)
        inside = None if outside is None else emit.inside(frame, size, patch.axes)
        conditions = [each for each in (placed.known, inside) if each is not None]
        if not conditions:
            return placed.values
        condition = conditions[0] if len(conditions) == 1 else emit.emit("And", *conditions)
        number = self.known.get(value.name or "")
        if placed.known is None:
            around = emit.constant(outside, dtype_of(value))
        elif number is not None and outside in (None, number):
            around = emit.constant(number, dtype_of(value))
        else:
            around = emit.context(self.base_rows(value, outside or 0.0, patch.axes), frame, size, patch.axes)
        emit.cost += NUMBER_COST * count * area(frame)
        return emit.choose(condition, placed.values, around)

    def aligned(
        self, value: ir.Value, frame: Frame, axes: tuple[int, int], size: Pair, *, nothing_else: bool
    ) -> ir.Value:
        """Returns any input of a node that computes place by place, for a frame of maps of some size.

        Args:
            value: the input.
            frame: the frame.
            axes: where height and width lie.
            size: the height and width of the maps.
            nothing_else: whether the node's result changes within the frame alone, whatever changes in this input.
        """
        state = self.states.get(value)
        if isinstance(state, Patch):
            if state.axes != axes or map_size(value, axes) != size:
                raise NotLocalError
            return self.extended(value, frame, None)
        if state is not None and not nothing_else:
            raise NotLocalError
        if has_no_places(value, axes):
            return self.base(value) if state is None else state
        if len(lengths(value)) != MAP_RANK or map_size(value, axes) != size:
            raise NotLocalError
        count = channels(value, axes)
        self.patches.cost += NUMBER_COST * count * area(frame)
        if state is not None:
            return self.patches.cut_from(state, frame, size, count, axes)
        if value in self._fixed:
            raise NotLocalError
        return self.patches.context(self.base_rows(value, 0.0, axes), frame, size, axes)

    def finish(self, node: ir.Node, inputs: list[ir.Value | None], frame: Frame, **changed: Any) -> ir.Value:
        """Emits a node on patches, which gives a patch in a frame."""
        output, axes = node.outputs[0], CHANNELS_FIRST
        count = channels(output, axes) if len(lengths(output)) == MAP_RANK else 1
        self.patches.cost += cost_of_node(node, [count * area(frame)])
        return self.copy(node, inputs, **changed).outputs[0]


def fixed_values(graph: ir.Graph) -> set[ir.Value]:
    """Returns the values that depend on no input."""
    found = {value for value in graph.initializers.values() if not value.is_graph_input()}
    for node in graph:
        if all(value in found for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found


def lengths(value: ir.Value) -> tuple[int, ...]:
    """Returns the length of every axis of a value, 1 for the batch; NotLocalError where another is not known."""
    if value.shape is None:
        raise NotLocalError
    first, *others = sizes_of(value) or (1,)
    if None in others:
        raise NotLocalError
    return (1 if first is None else first, *(length for length in others if length is not None))


def map_size(value: ir.Value, axes: tuple[int, int]) -> Pair:
    """Returns the height and width of a map."""
    found = lengths(value)
    if len(found) != MAP_RANK:
        raise NotLocalError
    return found[axes[0]], found[axes[1]]


def channels(value: ir.Value, axes: tuple[int, int]) -> int:
    """Returns the number of channels of a map."""
    return lengths(value)[1 if axes == CHANNELS_FIRST else -1]


def area(frame: Frame) -> int:
    """Returns the number of places of a frame."""
    return frame[0].size * frame[1].size


def has_no_places(value: ir.Value, axes: tuple[int, int]) -> bool:
    """Whether a value has one number for all places along both height and width."""
    found = lengths(value) if value.shape is not None and len(value.shape) else ()
    return all(len(found) < -axis or found[axis] == 1 for axis in axes)


def cost_of_node(node: ir.Node, numbers: list[int]) -> int:
    """Returns what a node costs for one image, in multiplications of a convolution.

    Args:
        node: the node.
        numbers: how many numbers each of its outputs has.
    """
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is not None and weight.shape is not None:
        if node.op_type in ("Conv", "ConvTranspose"):
            return sum(numbers) * math.prod(lengths(weight)[1:])
        if node.op_type in ("Gemm", "MatMul"):
            inner = lengths(weight)
            return sum(numbers) * math.prod(inner) // max(inner[-1], 1)
    return NUMBER_COST * sum(numbers)
