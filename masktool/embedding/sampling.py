"""Methods that score the image under many masks; the first mask keeps everything."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, Explained, Options
from masktool.embedding.network import Network, choose_class
from masktool.embedding.rounds import Passed, RoundsMethod


class SamplingMethod(RoundsMethod[Options]):
    """A method that scores the image under many masks.

    A row is one mask; row 0 keeps everything.
    """

    @abc.abstractmethod
    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the masks (m, 1, h, w) float32 of rows (m,) int64."""

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:  # noqa: ARG002  # many need nothing
        """Emits what both the masks and the map are made from, once, outside the loop; by names of the method's own.

        The values join ``asked.extra``.
        """
        return {}

    @abc.abstractmethod
    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the map, and what goes with it, from the target's score under each mask, (rows,) float32.

        The first score is that with nothing missing. The predictions stay empty.
        """

    @property
    def chunk(self) -> int:
        """The number of masks in one round; the last round repeats the last mask where it has fewer."""
        return min(self.chunk_limit, self.n_rows)

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop over the masks, and what is made of their scores."""
        asked = asked._replace(extra={**asked.extra, **self.prepare(flow, asked)})
        n_rounds = math.ceil(self.n_rows / self.chunk)
        rounds = self.run_rounds(flow, self.network.masked_network(), [], asked, n_rounds)
        scores = flow.reshape(rounds.stacked[0], n_rounds * self.chunk)
        if self.is_padded:
            scores = flow.rows(scores, 0, self.n_rows)
        scores = flow.typed(scores, FLOAT, [self.n_rows])
        return self.finish(flow, scores, asked)._replace(predictions=rounds.predictions)

    @property
    def is_padded(self) -> bool:
        """Whether the last round has fewer masks than the others."""
        return self.n_rows % self.chunk > 0

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the masks of one round, and the network under them."""
        if self.is_padded:
            rows = flow.typed(flow.emit("Min", rows, flow.integer(self.n_rows - 1)), INT64, [self.chunk])
        masks = flow.typed(self.masks(flow, rows, asked), FLOAT, [self.chunk, 1, *self.network.size])
        outputs = network.place_masked(flow, asked.image, masks, asked.others)
        scores = network.probabilities(flow, outputs)
        target = choose_class(flow, scores, target, one_image=True)
        chosen = flow.typed(flow.emit("Gather", scores, target, axis=1), FLOAT, [self.chunk, 1])
        return Passed(outputs, target, sums, [chosen])
