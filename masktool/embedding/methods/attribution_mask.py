"""Attribution mask in the graph: one loop over the images x_0 ... x_T and, for integrals, over the places before each.

A multiplication takes one row, or for integrated gradients one for the image x_k itself, of weight 0, and one for each
place on the way to it. The row behind the last multiplication tells which class comes first on x_T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.iterations import IteratedMethod
from masktool.embedding.method import Asked, Explained, register
from masktool.embedding.network import Network
from masktool.embedding.rounds import Passed, choose_chunk
from masktool.explainers.methods.attribution_mask import AttributionMask
from masktool.explainers.methods.integrated_gradients import step_rule


@register
class EmbeddedAttributionMask(IteratedMethod[AttributionMask]):
    """Mean over the channels of the mask after T multiplications."""

    name: ClassVar[str] = AttributionMask.name

    @property
    def integrates(self) -> bool:
        """Whether the attribution is an integral."""
        return self.options.rule == "integrated-gradients"

    @property
    def rows_of_step(self) -> int:
        """The number of rows of one multiplication."""
        return 1 + self.options.n_steps if self.integrates else 1

    @property
    def n_rows(self) -> int:
        """The number of rows of the multiplications that the option asks for, and one behind the last."""
        return self.n_iterations * self.rows_of_step + 1

    @property
    def chunk(self) -> int:
        """The number of rows in one round, all of one multiplication."""
        return choose_chunk(self.rows_of_step, self.chunk_limit)

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the loop, and the mean of the last mask over the channels."""
        steps = self.emit_iterations(flow, asked)
        rounds = flow.emit("Add", flow.emit("Mul", steps, flow.integer(self.rows_of_step // self.chunk)), flow.ints(1))
        shape = [1, *self.network.image_shape]
        ones, zeros = (flow.filled(shape, value) for value in (1, 0))
        number = flow.floats([0])
        found = self.run_rounds(
            flow,
            self.network.differentiable(),
            [ones, number, number, *([zeros] if self.integrates else [])],
            asked,
            flow.typed(flow.emit("Squeeze", rounds, flow.ints(0)), INT64, []),
        )
        mean = flow.emit("ReduceMean", found.sums[0], flow.ints(self.network.channel_axis), keepdims=1)
        figures = {"completeness_gap": found.sums[1], "kept_soft": found.sums[2]}
        return Explained(found.predictions, self.network.maps_first(flow, mean), figures=figures)

    def emit_pass(
        self, flow: Flow, network: Network, rows: ir.Value, target: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> Passed:
        """Emits the gradients of one round, and behind the last round of a multiplication the next mask.

        The sums are the mask, the completeness gap of the whole image, whether the class comes first on the image of
        the round's first row, and for an integral the gradients so far.
        """
        masks, gap, kept, *integral = sums
        masked = flow.emit("Mul", flow.as_type(asked.image, FLOAT), masks)
        places = flow.emit("Mod", rows, flow.integer(self.rows_of_step))
        images = flow.as_type(self.on_the_way(flow, masked, places), network.image_type)
        found, target = network.place_differentiated(flow, images, target, asked.others, one_image=True)
        gradients = found[GRADIENT_PREFIX + "image"]
        first = flow.rows(rows, 0, 1)
        gap = flow.emit("Where", flow.emit("Equal", first, flow.integer(0)), self.gap(flow, masked, found), gap)
        top = flow.emit("ArgMax", flow.rows(network.probabilities(flow, found), 0, 1), axis=1, keepdims=0)
        kept = flow.as_type(flow.emit("Equal", top, target), FLOAT)
        if self.integrates:
            gradients = self.integrate(flow, gradients, places, integral[0])
            integral = [gradients]
        following = flow.emit("Mul", masks, self.normalised(flow, self.attribute(flow, gradients, masked)))
        masks = flow.emit("Where", self.completes(flow, rows, asked), following, masks)
        flow.typed(masks, FLOAT, [1, *self.network.image_shape])
        figures = [flow.typed(figure, FLOAT, [1]) for figure in (gap, kept)]
        return Passed({name: found[name] for name in network.outputs}, target, [masks, *figures, *integral], [])

    def on_the_way(self, flow: Flow, masked: ir.Value, places: ir.Value) -> ir.Value:
        """Emits the images of a round: x_k, or images on the straight way to it, x_k itself first."""
        if not self.integrates:
            return masked
        shares = np.concatenate([[1.0], step_rule("gauss-legendre", self.options.n_steps)[0]])
        return flow.emit("Mul", flow.reshape(flow.emit("Gather", flow.floats(shares), places), -1, 1, 1, 1), masked)

    @staticmethod
    def gap(flow: Flow, masked: ir.Value, found: dict[str, ir.Value]) -> ir.Value:
        """Emits by how much gradient times input of the round's first row misses the logit, (1,)."""
        gradient = flow.rows(found[GRADIENT_PREFIX + "image"], 0, 1)
        total = flow.emit("ReduceSum", flow.emit("Mul", masked, gradient), flow.ints(1, 2, 3), keepdims=0)
        return flow.emit("Sub", flow.rows(found[OBJECTIVE], 0, 1), total)

    def integrate(self, flow: Flow, gradients: ir.Value, places: ir.Value, before: ir.Value) -> ir.Value:
        """Emits the weighted sum of gradients so far: from 0 on where the round's first row is the image itself."""
        weights = flow.floats(np.concatenate([[0.0], step_rule("gauss-legendre", self.options.n_steps)[1]]))
        weighted = flow.emit("Mul", flow.reshape(flow.emit("Gather", weights, places), -1, 1, 1, 1), gradients)
        beginning = flow.emit("Equal", flow.rows(places, 0, 1), flow.integer(0))
        start = flow.emit("Where", beginning, flow.floats(0), before)
        total = flow.emit("Add", start, flow.emit("ReduceSum", weighted, flow.ints(0), keepdims=1))
        return flow.typed(total, FLOAT, [1, *self.network.image_shape])

    def attribute(self, flow: Flow, gradients: ir.Value, images: ir.Value) -> ir.Value:
        """Emits attributions as :func:`masktool.explainers.methods.attribution_mask.attribute` gives them."""
        if self.options.rule == "gradient":
            return gradients
        if self.options.rule == "magnitude-x-input":
            return flow.emit("Mul", flow.emit("Abs", gradients), images)
        return flow.emit("Mul", gradients, flow.sign(images) if self.options.rule == "gxsi" else images)

    def normalised(self, flow: Flow, attributions: ir.Value) -> ir.Value:
        """Emits attributions brought to [0, 1] over the pixels of a channel; 1 where the channel has no differences."""
        axes, one = flow.ints(*self.network.spatial_axes), flow.floats(1)
        low = flow.emit("ReduceMin", attributions, axes, keepdims=1)
        span = flow.emit("Sub", flow.emit("ReduceMax", attributions, axes, keepdims=1), low)
        shares = flow.emit("Div", flow.emit("Sub", attributions, low), flow.divisor(span))
        return flow.emit("Where", flow.positive(span), shares, one)

    def completes(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits whether the round is the last one of a multiplication, (1,) bool."""
        behind = flow.emit("Add", flow.rows(rows, self.chunk - 1, self.chunk), flow.integer(1))
        whole = flow.emit("Equal", flow.emit("Mod", behind, flow.integer(self.rows_of_step)), flow.integer(0))
        total = flow.emit("Mul", self.emit_iterations(flow, asked), flow.integer(self.rows_of_step))
        return flow.emit("And", whole, flow.emit("LessOrEqual", behind, total))
