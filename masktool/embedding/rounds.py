"""Runs a network on many rows inside a Loop, a few at a time; the first row stands for the image as it is.

A row is the image under one mask, or one image of many that are made from it. Row 0 gives the prediction and, where no
class was named, the class to explain; so the network's weights stand in the file once.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Condition, Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Options
from masktool.embedding.network import Network


class Passed(NamedTuple):
    """What one round gives.

    Attributes:
        outputs: the network's outputs by name, with a row for each of the round's.
        target: the class that is explained, (1,) int64.
        sums: what is carried to the next round.
        stacked: what is kept of every round, of one shape each.
    """

    outputs: Mapping[str, ir.Value]
    target: ir.Value
    sums: Sequence[ir.Value]
    stacked: Sequence[ir.Value]


class Rounds(NamedTuple):
    """What all rounds gave.

    Attributes:
        predictions: the source's own outputs for row 0, by name.
        target: the class that is explained, (1,) int64.
        sums: what the last round carried.
        stacked: what was kept of every round, (rounds, ...).
    """

    predictions: Mapping[str, ir.Value]
    target: ir.Value
    sums: Sequence[ir.Value]
    stacked: Sequence[ir.Value]


class RoundsMethod(EmbeddedMethod[Options]):
    """A method that runs a network on many rows, one image after the other."""

    takes_batches: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def n_rows(self) -> int:
        """The number of rows, row 0 included."""

    @abc.abstractmethod
    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the network, run on the rows (m,) int64 of one round."""

    @property
    def chunk(self) -> int:
        """The number of rows in one round."""
        return choose_chunk(self.n_rows, self.chunk_limit)

    @property
    def chunk_limit(self) -> int:
        """The largest number of rows in one round."""
        return 1 if self.network.metadata.one_by_one else self.network.chunk

    def run_rounds(
        self,
        flow: Flow,
        network: Network,
        sums: Sequence[ir.Value],
        asked: Asked,
        rounds: ir.Value | int | None = None,
        goes_on: Condition | None = None,
    ) -> Rounds:
        """Emits the loop.

        Args:
            flow: the graph to emit into.
            network: the network to run.
            sums: what the first round starts from, of declared types and shapes.
            asked: what is asked for.
            rounds: the largest number of rounds; None for as many as the rows need.
            goes_on: function that emits from the sums whether another round follows; None makes all rounds.
        """
        chunk = self.chunk
        own = {str(value.name): value for value in network.model.graph.outputs}
        held = [PredictionHolder.of(own[name]) for name in network.outputs]

        def emit_round(
            inside: Flow, number: ir.Value, carried: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            target, predictions, sums = carried[0], carried[1 : 1 + len(held)], carried[1 + len(held) :]
            first = inside.emit("Mul", number, inside.integer(chunk))
            rows = inside.emit("Add", inside.reshape(first, 1), inside.constant(list(range(chunk)), INT64))
            passed = self.emit_pass(inside, network, inside.typed(rows, INT64, [chunk]), target, sums, asked)
            beginning = inside.emit("Equal", number, inside.integer(0))
            predictions = [
                holder.hold(inside, beginning, passed.outputs[name], before, chunk)
                for name, holder, before in zip(network.outputs, held, predictions, strict=True)
            ]
            return [passed.target, *predictions, *passed.sums], list(passed.stacked)

        def goes_on_after(inside: Flow, carried: Sequence[ir.Value]) -> ir.Value:
            assert goes_on is not None
            return goes_on(inside, carried[1 + len(held) :])

        start = [asked.target, *(holder.start(flow) for holder in held), *sums]
        count = self.n_rows // chunk if rounds is None else rounds
        result = flow.loop(count, start, emit_round, None if goes_on is None else goes_on_after)
        predictions = dict(zip(network.outputs, result.carried[1 : 1 + len(held)], strict=True))
        return Rounds(predictions, result.carried[0], result.carried[1 + len(held) :], result.stacked)


class PredictionHolder(NamedTuple):
    """Keeps one output of the first row through all rounds.

    Attributes:
        dtype: the output's element type.
        shape: its shape with one image; None for an open length.
        batched: whether its first axis is that of the rows.
    """

    dtype: ir.DataType
    shape: tuple[int | None, ...]
    batched: bool

    @classmethod
    def of(cls, value: ir.Value) -> PredictionHolder:
        """Returns the holder of a network's output."""
        assert value.shape is not None
        lengths = [length if isinstance(length, int) else None for length in value.shape]
        batched = bool(lengths) and lengths[0] is None
        return cls(value.dtype or FLOAT, (1, *lengths[1:]) if batched else tuple(lengths), batched)

    def start(self, flow: Flow) -> ir.Value:
        """Emits what stands for the output before the first round."""
        fixed = [1 if length is None else length for length in self.shape]
        zero = flow.emit("ConstantOfShape", flow.ints(*fixed), value=ir.tensor([0], dtype=self.dtype))
        return flow.typed(zero, self.dtype, self.shape)

    def hold(self, flow: Flow, beginning: ir.Value, value: ir.Value, before: ir.Value, chunk: int) -> ir.Value:
        """Emits the output of the first row in the first round, and what was held before in any other."""
        row = flow.rows(value, 0, 1) if self.batched and chunk > 1 else value
        if None in self.shape:  # of another length than what stands for it before the first round
            (held,) = flow.branch(
                beginning,
                lambda inside: [inside.emit("Identity", row)],
                lambda inside: [inside.emit("Identity", before)],
            )
            return flow.typed(held, self.dtype, self.shape)
        return flow.typed(flow.emit("Where", beginning, row, before), self.dtype, self.shape)


def choose_chunk(total: int, limit: int) -> int:
    """Returns the largest divisor of the number of rows that is within the limit: every round has as many rows."""
    return max(divisor for divisor in range(1, min(limit, total) + 1) if total % divisor == 0)
