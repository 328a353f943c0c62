"""Methods that score the image under many masks; the first mask keeps everything."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, Explained, Options
from masktool.embedding.network import Network, choose_class
from masktool.embedding.rounds import Passed, RoundsMethod


class Sampled(NamedTuple):
    """What the masks gave.

    Attributes:
        scores: the target's score under each mask, (rows,) float32; the first is that with nothing missing.
        sums: what was added up over the masks, see :meth:`SamplingMethod.add`.
    """

    scores: ir.Value
    sums: Sequence[ir.Value]


class SamplingMethod(RoundsMethod[Options]):
    """A method that scores the image under many masks.

    A row is one mask; row 0 keeps everything.
    """

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
        rounds = self.run_rounds(flow, self.network.masked_network(), self.begin(flow), asked)
        scores = flow.typed(flow.reshape(rounds.stacked[0], self.n_rows), FLOAT, [self.n_rows])
        explained = self.finish(flow, Sampled(scores, rounds.sums), asked)
        return explained._replace(predictions=rounds.predictions)

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the masks of one round, and the network under them."""
        masks = flow.typed(self.masks(flow, rows, asked), FLOAT, [self.chunk, 1, *self.network.size])
        outputs = network.place_masked(flow, asked.image, masks, asked.others)
        scores = network.probabilities(flow, outputs)
        target = choose_class(flow, scores, target, one_image=True)
        chosen = flow.typed(flow.emit("Gather", scores, target, axis=1), FLOAT, [self.chunk, 1])
        return Passed(outputs, target, self.add(flow, rows, masks, chosen, list(sums)), [chosen])
