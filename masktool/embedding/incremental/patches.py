"""Patches: what a graph computes of a map within the windows' frames, and how a patch gets other borders.

Where an operator reads beyond its patch, the base stands there: what the map holds where nothing is missing. It comes
as rows, one per place, with one place more on each side of the map that holds what the operator sees outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.embedding.flow import BOOL, INT64, Flow
from masktool.embedding.incremental.frames import Frame, Span
from masktool.explainers.incremental import CORNERS, BaseInput, Pair, Windows
from masktool.ops.builder import dtype_of, sizes_of

CHANNELS_FIRST, CHANNELS_LAST = (-2, -1), (-3, -2)
"""Where height and width lie, counted from the last axis."""
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
EVERYWHERE = "everywhere"


class Patch(NamedTuple):
    """What is computed of one map.

    Attributes:
        value: the patches (M, ...) of M windows.
        frame: the places that they hold.
        axes: where height and width lie, ``CHANNELS_FIRST`` or ``CHANNELS_LAST``.
    """

    value: ir.Value
    frame: Frame
    axes: tuple[int, int]


class Placed(NamedTuple):
    """Values that were brought to other places of a map.

    Attributes:
        values: the values (M, ...), arbitrary where there were none to bring.
        known: where there were some, boolean, one number per place.
    """

    values: ir.Value
    known: ir.Value | None


class PatchGraph(Flow):
    """The graph that computes patches; its input ``corners`` (M, 2) int64 says where the windows start.

    Args:
        windows: the windows.
        opset: the version of the operators.
    """

    def __init__(self, windows: Windows, opset: int) -> None:
        super().__init__(ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="patches"), "patches")
        self.windows = windows
        self.bases: dict[str, BaseInput] = {}
        self.cost = 0
        self._declared: dict[BaseInput, ir.Value] = {}
        self.corners = self._declare(CORNERS, INT64, ["windows", 2])

    def _declare(self, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def declare_base(self, base: BaseInput, source: ir.Value) -> ir.Value:
        """Returns the input that a base value comes through; the same request twice is one input."""
        if base not in self._declared:
            name = f"base_{len(self.bases)}"
            rank = 2 if base.as_rows else len(sizes_of(source))
            self._declared[base] = self._declare(name, dtype_of(source), [None] * rank)
            self.bases[name] = base
        return self._declared[base]

    # Where windows stand

    def starts(self, span: Span, axis: int) -> ir.Value:
        """Emits where the windows' spans start along one axis, (M, 1)."""
        found = self.emit("Slice", self.corners, self.ints(axis), self.ints(axis + 1), self.ints(1))
        if span.scale > 1:
            found = self.emit("Div", found, self.integer(span.scale))
        if span.step > 1:
            found = self.emit("Mul", found, self.integer(span.step))
        return self.emit("Add", found, self.integer(span.low)) if span.low else found

    def places(self, span: Span, axis: int) -> ir.Value:
        """Emits the places of the windows' spans along one axis, (M, size)."""
        return self.emit("Add", self.starts(span, axis), self.constant(np.arange(span.size)[None], INT64))

    def combine(self, op_type: str, rows: ir.Value, columns: ir.Value) -> ir.Value:
        """Emits an operator between each row's and each column's number: (M, h), (M, w) to (M, h, w)."""
        return self.emit(
            op_type, self.emit("Unsqueeze", rows, self.ints(2)), self.emit("Unsqueeze", columns, self.ints(1))
        )

    def within(self, places: ir.Value, length: int) -> ir.Value:
        """Emits whether places lie in 0 to length - 1."""
        not_before = self.emit("GreaterOrEqual", places, self.integer(0))
        return self.emit("And", not_before, self.emit("Less", places, self.integer(length)))

    def inside(self, frame: Frame, lengths: Pair, axes: tuple[int, int]) -> ir.Value | None:
        """Emits which places of a frame lie inside a map; None where all do."""
        last = [size - window for size, window in zip(self.windows.size, self.windows.window, strict=True)]
        if not any(span.leaves(*limits) for span, *limits in zip(frame, lengths, last, strict=True)):
            return None
        rows, columns = (
            self.within(self.places(span, axis), length)
            for axis, (span, length) in enumerate(zip(frame, lengths, strict=True))
        )
        return self.per_place(self.combine("And", rows, columns), axes)

    def per_place(self, numbers: ir.Value, axes: tuple[int, int]) -> ir.Value:
        """Emits numbers (M, h, w) with an axis of length 1 for the channels."""
        return self.emit("Unsqueeze", numbers, self.ints(1 if axes == CHANNELS_FIRST else 3))

    def choose(self, condition: ir.Value, values: ir.Value, others: ir.Value) -> ir.Value:
        """Emits values where a condition holds, and others elsewhere; ONNX Runtime's Where takes no booleans."""
        if dtype_of(values) != BOOL:
            return self.emit("Where", condition, values, others)
        kept = self.emit("And", condition, values)
        return self.emit("Or", kept, self.emit("And", self.emit("Not", condition), others))

    # What stands at other places

    def context(self, rows: ir.Value, frame: Frame, lengths: Pair, axes: tuple[int, int]) -> ir.Value:
        """Emits the base within frames, from its rows."""
        within = [
            self.emit(
                "Add",
                self.emit("Clip", self.places(span, axis), self.integer(-1), self.integer(length)),
                self.integer(1),
            )
            for axis, (span, length) in enumerate(zip(frame, lengths, strict=True))
        ]
        index = self.combine("Add", self.emit("Mul", within[0], self.integer(lengths[1] + 2)), within[1])
        return self.emitted(self.emit("Gather", rows, index), axes)

    def emitted(self, values: ir.Value, axes: tuple[int, int]) -> ir.Value:
        """Emits values (M, h, w, C) in the order of a map's axes."""
        return self.emit("Transpose", values, perm=TO_FIRST) if axes == CHANNELS_FIRST else values

    def shifted(self, patch: Patch, frame: Frame) -> Placed:
        """Emits a patch in another frame that moves with its own."""
        begins = [own.low - to.low for own, to in zip(patch.frame, frame, strict=True)]
        ends = [to.end - own.end for own, to in zip(patch.frame, frame, strict=True)]
        value, axes = patch.value, self.ints(*patch.axes)
        if min(*begins, *ends) < 0:
            starts = [max(0, -begin) for begin in begins]
            stops = [own.size - max(0, -end) for own, end in zip(patch.frame, ends, strict=True)]
            value = self.emit("Slice", value, self.ints(*starts), self.ints(*stops), axes)
        if max(*begins, *ends) <= 0:
            return Placed(value, None)
        pads = [max(0, amount) for amount in (*begins, *ends)]
        known = np.ones((1, 1, *(span.size - a - b for span, a, b in zip(frame, pads[:2], pads[2:], strict=True))))
        known = np.pad(known, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        known = known if patch.axes == CHANNELS_FIRST else known.transpose(TO_LAST)
        return Placed(self.emit("Pad", value, self.ints(*pads), None, axes), self.constant(known, BOOL))

    def moved(
        self, value: ir.Value, sizes: Pair, starts: Sequence[ir.Value], places: Sequence[ir.Value], channels: int,
        axes: tuple[int, int],
    ) -> Placed:  # fmt: skip
        """Emits values at places of their map, wherever these lie for each window.

        Args:
            value: the values (M, ...).
            sizes: their height and width.
            starts: the rows and columns, (M, 1) or (1, 1), at which they start.
            places: the rows and columns, (M, n) or (1, n), to bring them to.
            channels: their number of channels.
            axes: where height and width lie.
        """
        offsets = [self.emit("Sub", place, start) for place, start in zip(places, starts, strict=True)]
        cut = [
            self.emit("Clip", offset, self.integer(0), self.integer(size - 1))
            for offset, size in zip(offsets, sizes, strict=True)
        ]
        count = self.emit("Squeeze", self.length_of(self.corners, 0), self.ints(0))
        numbers = self.typed(self.emit("Range", self.integer(0), count, self.integer(1)), INT64)
        first = self.emit("Mul", self.reshape(numbers, -1, 1, 1), self.integer(sizes[0] * sizes[1]))
        index = self.combine("Add", self.emit("Mul", cut[0], self.integer(sizes[1])), cut[1])
        last = self.emit("Transpose", value, perm=TO_LAST) if axes == CHANNELS_FIRST else value
        found = self.emit("Gather", self.reshape(last, -1, channels), self.emit("Add", first, index))
        within = [self.within(offset, size) for offset, size in zip(offsets, sizes, strict=True)]
        return Placed(self.emitted(found, axes), self.per_place(self.combine("And", *within), axes))

    def in_frame(self, patch: Patch, frame: Frame, channels: int) -> Placed:
        """Emits a patch in another frame."""
        if all(own.moves_with(to) for own, to in zip(patch.frame, frame, strict=True)):
            return self.shifted(patch, frame)
        starts = [self.starts(span, axis) for axis, span in enumerate(patch.frame)]
        places = [self.places(span, axis) for axis, span in enumerate(frame)]
        rows, columns = patch.frame
        return self.moved(patch.value, (rows.size, columns.size), starts, places, channels, patch.axes)

    def in_map(self, patch: Patch, base: ir.Value, lengths: Pair, channels: int) -> ir.Value:
        """Emits whole maps (M, ...): the base, with a patch in each."""
        starts = [self.starts(span, axis) for axis, span in enumerate(patch.frame)]
        places = [self.constant(np.arange(length)[None], INT64) for length in lengths]
        rows, columns = patch.frame
        placed = self.moved(patch.value, (rows.size, columns.size), starts, places, channels, patch.axes)
        assert placed.known is not None
        return self.choose(placed.known, placed.values, base)

    def cut_from(self, whole: ir.Value, frame: Frame, lengths: Pair, channels: int, axes: tuple[int, int]) -> ir.Value:
        """Emits what whole maps (M, ...) hold within frames; arbitrary numbers outside the maps."""
        nothing = self.constant([[0]], INT64)
        places = [self.places(span, axis) for axis, span in enumerate(frame)]
        return self.moved(whole, lengths, [nothing, nothing], places, channels, axes).values


def without_step(frame: Frame) -> bool:
    """Whether a patch in a frame moves place by place, as operators give them."""
    return all(span.step == 1 for span in frame)


def replace_low(frame: Frame, amounts: Pair) -> Frame:
    """Returns a frame moved by some places along height and width."""
    rows, columns = (dataclasses.replace(span, low=span.low + by) for span, by in zip(frame, amounts, strict=True))
    return rows, columns
