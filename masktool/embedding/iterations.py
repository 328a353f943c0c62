"""Methods that take one step after the other, as many as an input of the file or a constant says."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.embedding.flow import INT64, Flow
from masktool.embedding.method import Asked, Comparison, ExtraInput, Options
from masktool.embedding.rounds import RoundsMethod

ITERATIONS = "n_iterations"
"""Name of the option, and of the input or constant."""


class IteratedMethod(RoundsMethod[Options]):
    """A method with the option ``n_iterations``, the number of steps or the largest number of them."""

    @property
    def n_iterations(self) -> int:
        """The option; where an input says the number, its default."""
        return int(getattr(self.options, ITERATIONS))

    def check_samples_input(self) -> None:
        """Allows the number of steps to be an input."""

    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """Returns the number of steps."""
        kind = self.network.samples_input
        default = None if kind == "required" else [self.n_iterations]
        return (ExtraInput(ITERATIONS, INT64, (1,), default, settled=kind == "fixed"),)

    def comparison(self) -> Comparison:
        """Returns how the file is compared with Python: over all steps."""
        return Comparison(self.options, {ITERATIONS: np.array([self.n_iterations])})

    def emit_iterations(self, flow: Flow, asked: Asked) -> ir.Value:
        """Emits the number of steps () int64, 1 where less is asked for."""
        asked_for = flow.emit("Max", asked.extra[ITERATIONS], flow.ints(1))
        return flow.typed(flow.emit("Squeeze", asked_for, flow.ints(0)), INT64, [])
