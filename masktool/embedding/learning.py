"""One step of learning in the graph: the optimisers of :mod:`masktool.explainers.learning`, and when a loss settles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.explainers.learning import PATIENCE, Momentum, RmsProp

UNREACHED = float(np.finfo(np.float32).max)
"""Loss of steps that were not made."""


class Losses(NamedTuple):
    """The losses so far.

    Attributes:
        latest: those of the latest steps, (PATIENCE,) float32, each at its step's remainder by PATIENCE.
        lowest: the lowest of those before, (1,) float32.
    """

    latest: ir.Value
    lowest: ir.Value

    @classmethod
    def none(cls, flow: Flow) -> Losses:
        """Returns the losses before the first step."""
        return cls(flow.floats([UNREACHED] * PATIENCE), flow.floats([UNREACHED]))

    def with_loss(self, flow: Flow, loss: ir.Value, step: ir.Value, counts: ir.Value) -> Losses:
        """Returns the losses with one more.

        Args:
            flow: the graph to emit into.
            loss: the loss, (1,).
            step: the number of losses before it, () int64.
            counts: whether to count it at all, () bool.
        """
        place = flow.emit("Mod", step, flow.integer(PATIENCE))
        here = flow.emit("Equal", flow.constant(np.arange(PATIENCE), INT64), place)
        latest = flow.emit("Where", flow.emit("And", here, counts), loss, self.latest)
        leaving = flow.emit("ReduceMin", flow.emit("Where", here, self.latest, flow.floats(UNREACHED)), keepdims=1)
        lowest = flow.emit("Where", counts, flow.least(self.lowest, leaving), self.lowest)
        return Losses(flow.typed(latest, FLOAT, [PATIENCE]), flow.typed(lowest, FLOAT, [1]))

    def have_settled(self, flow: Flow, tolerance: float) -> ir.Value:
        """Emits what :func:`masktool.explainers.learning.have_settled` returns, () bool."""
        now = flow.least(self.lowest, flow.emit("ReduceMin", self.latest, keepdims=1))
        improved = flow.emit("Sub", self.lowest, now)
        bound = flow.emit("Mul", flow.emit("Abs", now), flow.floats(tolerance))
        enough = flow.emit("Less", self.lowest, flow.floats(UNREACHED))
        settled = flow.emit("And", enough, flow.emit("LessOrEqual", improved, bound))
        return flow.emit("Squeeze", settled, flow.ints(0))


def begin_memory(optimiser: RmsProp | Momentum) -> float:
    """Returns the value that every number of an optimiser's memory starts from."""
    return float((optimiser.squares if isinstance(optimiser, RmsProp) else optimiser.velocity).flat[0])


def emit_slowed(flow: Flow, final_rate: float, step: ir.Value, steps: ir.Value) -> ir.Value:
    """Emits the share of the learning rate that is left at a step: 1 at the first, down to ``final_rate``."""
    share = flow.emit("Div", flow.as_type(step, FLOAT), flow.as_type(steps, FLOAT))
    return flow.emit("Sub", flow.floats(1), flow.emit("Mul", flow.floats(1 - final_rate), share))


def emit_change(
    flow: Flow, optimiser: RmsProp | Momentum, gradients: ir.Value, memory: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Emits what an optimiser adds to the parameters, and its memory afterwards."""
    rate = flow.floats(-optimiser.learning_rate)
    if isinstance(optimiser, RmsProp):
        fresh = flow.emit("Mul", flow.floats(1 - optimiser.decay), flow.emit("Mul", gradients, gradients))
        memory = flow.emit("Add", flow.emit("Mul", flow.floats(optimiser.decay), memory), fresh)
        root = flow.emit("Sqrt", flow.emit("Add", memory, flow.floats(optimiser.epsilon)))
        return flow.emit("Div", flow.emit("Mul", rate, gradients), root), memory
    memory = flow.emit("Add", flow.emit("Mul", flow.floats(optimiser.momentum), memory), gradients)
    return flow.emit("Mul", rate, memory), memory
