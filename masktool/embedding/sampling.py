"""Runs the masked network under many masks inside a Loop, a few at a time; the first mask keeps everything.

The first mask gives the prediction and, where no class was named, the class to explain; so the network's weights stand
in the file once.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, Options
from masktool.embedding.network import choose_class


class Sampled(NamedTuple):
    """What the masks gave.

    Attributes:
        scores: the target's score under each mask, (rows,) float32; the first is that with nothing missing.
        sums: what was added up over the masks, see :meth:`SamplingMethod.add`.
    """

    scores: ir.Value
    sums: Sequence[ir.Value]


class SamplingMethod(EmbeddedMethod[Options]):
    """A method that scores the image under many masks.

    A row is one mask; row 0 keeps everything.
    """

    takes_batches: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def n_rows(self) -> int:
        """The number of masks, that of row 0 included."""

    @abc.abstractmethod
    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the masks (m, 1, h, w) float32 of rows (m,) int64."""

    def begin(self, flow: Flow) -> list[ir.Value]:  # noqa: ARG002  # most methods add nothing up
        """Emits what sums start from, float32 of declared shapes; nothing where the scores are all that is needed."""
        return []

    def add(
        self, flow: Flow, rows: ir.Value, masks: ir.Value, scores: ir.Value, sums: list[ir.Value]
    ) -> list[ir.Value]:
        """Emits the sums with masks (m, 1, h, w) and their scores (m, 1) added."""
        del flow, rows, masks, scores
        return sums

    @abc.abstractmethod
    def finish(self, flow: Flow, sampled: Sampled, asked: Asked) -> Explained:
        """Emits the map, and what goes with it; the predictions stay empty."""

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop over the masks, and what is made of their scores."""
        network = self.network.masked_network()
        chunk = choose_chunk(self.n_rows, self.chunk_limit)
        held = [PredictionHolder.of(value) for value in network.model.graph.outputs]
        sums = self.begin(flow)

        def emit_round(
            inside: Flow, number: ir.Value, carried: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            target, predictions, sums = carried[0], carried[1 : 1 + len(held)], carried[1 + len(held) :]
            first = inside.emit("Mul", number, inside.integer(chunk))
            rows = inside.emit("Add", inside.reshape(first, 1), inside.constant(list(range(chunk)), INT64))
            masks = self.masks(inside, inside.typed(rows, INT64, [chunk]), asked)
            inside.typed(masks, FLOAT, [chunk, 1, *self.network.size])
            outputs = network.place_masked(inside, asked.image, masks, asked.others)
            scores = network.probabilities(inside, outputs)
            target = choose_class(inside, scores, target, one_image=True)
            chosen = inside.typed(inside.emit("Gather", scores, target, axis=1), FLOAT, [chunk, 1])
            beginning = inside.emit("Equal", number, inside.integer(0))
            predictions = [
                holder.hold(inside, beginning, outputs[name], before, chunk)
                for name, holder, before in zip(network.outputs, held, predictions, strict=True)
            ]
            return [target, *predictions, *self.add(inside, rows, masks, chosen, sums)], [chosen]

        start = [asked.target, *(holder.start(flow) for holder in held), *sums]
        result = flow.loop(self.n_rows // chunk, start, emit_round)
        predictions = dict(zip(network.outputs, result.carried[1 : 1 + len(held)], strict=True))
        scores = flow.typed(flow.reshape(result.stacked[0], self.n_rows), FLOAT, [self.n_rows])
        explained = self.finish(flow, Sampled(scores, result.carried[1 + len(held) :]), asked)
        return explained._replace(predictions=predictions)

    @property
    def chunk_limit(self) -> int:
        """The largest number of masks in one pass."""
        return 1 if self.network.metadata.one_by_one else self.network.chunk


class PredictionHolder(NamedTuple):
    """Keeps one output of the first mask through all rounds.

    Attributes:
        dtype: the output's element type.
        shape: its shape with one image; None for an open length.
        batched: whether its first axis is that of the masks.
    """

    dtype: ir.DataType
    shape: tuple[int | None, ...]
    batched: bool

    @classmethod
    def of(cls, value: ir.Value) -> PredictionHolder:
        """Returns the holder of a masked network's output."""
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
    """Returns the largest divisor of the number of rows that is within the limit: every round has as many masks."""
    return max(divisor for divisor in range(1, min(limit, total) + 1) if total % divisor == 0)
