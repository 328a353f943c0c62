"""Integrated gradients in the graph: a loop over the steps, with the network and its gradient in its body.

Row 0 is the image and row 1 the baseline, without weight in the integral: they give the logit's change, to which the
map should sum up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.embedding.baseline import emit_baseline
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.gradient_figures import emit_completeness_gap
from masktool.embedding.method import Asked, Explained, register
from masktool.embedding.stepping import Stepped, SteppingMethod
from masktool.errors import MasktoolError
from masktool.explainers.methods.integrated_gradients import IntegratedGradients, step_rule
from masktool.messages import parameter


@register
class EmbeddedIntegratedGradients(SteppingMethod[IntegratedGradients]):
    """Share of each pixel in the change of the logit from the baseline to the image."""

    name: ClassVar[str] = IntegratedGradients.name
    first_step: ClassVar[int] = 2
    n_sums: ClassVar[int] = 1

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:
        """Emits the baseline, and the way from it to the image."""
        baseline = emit_baseline(flow, self.network, asked.image, self.options.baseline)
        return {"baseline": baseline, "change": flow.emit("Sub", asked.image, baseline)}

    def images(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits images on the straight way from the baseline to the image; row 0 is the image to the last bit."""
        places = self.per_row(flow, self.places(flow, rows, asked))
        moved = flow.emit("Add", asked.extra["baseline"], flow.emit("Mul", places, asked.extra["change"]))
        is_image = self.per_row(flow, flow.emit("Equal", rows, flow.integer(0)))
        return flow.emit("Where", is_image, asked.image, moved)

    def add(
        self, flow: Flow, rows: ir.Value, gradients: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> list[ir.Value]:
        """Emits the integral with the weighted gradients added."""
        weights = self.weights(flow, rows, asked)
        weighted = self.sum_of_rows(flow, flow.emit("Mul", gradients, weights))
        return [flow.emit("Add", sums[0], weighted)]

    def places(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits where on the way rows (m,) lie: the baseline at 0, steps as :func:`step_rule` has them."""
        if self.options.rule == "gauss-legendre":
            places, _ = step_rule(self.options.rule, self.n_steps)
            return flow.emit("Gather", flow.floats(np.concatenate([[1, 0], places])), rows)
        numbers = flow.as_type(flow.emit("Sub", rows, flow.integer(self.first_step)), FLOAT)
        middles = flow.emit("Div", flow.emit("Add", numbers, flow.floats(0.5)), self.count(flow, asked))
        return flow.bounded(middles, low=0)

    def weights(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the weights of rows in the integral, in a shape that goes with images."""
        if self.options.rule == "gauss-legendre":
            _, weights = step_rule(self.options.rule, self.n_steps)
            return self.per_row(flow, flow.emit("Gather", flow.floats(np.concatenate([[0, 0], weights])), rows))
        return flow.emit("Div", self.are_steps(flow, rows, asked), self.count(flow, asked))

    def check_samples_input(self) -> None:
        """Raises a MasktoolError where the rule's points are settled at export."""
        if self.options.rule == "gauss-legendre":
            raise MasktoolError(
                "the points of Gauss and Legendre's rule are computed at export, for one number of steps",
                where=parameter("samples_input", self.network.samples_input),
                fix="set rule=riemann, or export a file for each number of steps",
            )

    def finish(self, flow: Flow, stepped: Stepped, asked: Asked) -> Explained:
        """Emits the integral times the change of each value, summed over the channels, and the gap."""
        saliency = self.network.sum_of_channels(flow, flow.emit("Mul", stepped.sums[0], asked.extra["change"]))
        image, baseline = (flow.rows(stepped.objectives, row, row + 1) for row in (0, 1))
        gap = emit_completeness_gap(flow, flow.emit("Sub", image, baseline), saliency)
        return Explained({}, saliency, figures=gap)
