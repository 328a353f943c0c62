"""Extremal perturbations in the graph: the grid's windows, the enlargement and their gradients as products of matrices.

A matrix of 0 and 1 lays the windows around the grid's parameters side by side, (rows x window, columns x window): its
product with the grid has the same bits as the grid, and its transpose adds up the gradients of a parameter's copies.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.contract import Loss
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.learned_mask import LearnedMaskMethod, MaskAnswer, Softened
from masktool.embedding.method import register
from masktool.explainers.learning import Momentum
from masktool.explainers.methods.extremal import (
    AREA_WEIGHT,
    REACH,
    SAME,
    SHARPNESS,
    STAGES,
    UNDECIDED,
    Aim,
    Extremal,
    SmoothMasks,
    pixels_in_area,
)

SIGNS: dict[Aim, tuple[float, ...]] = {"preserve": (1.0,), "delete": (-1.0,), "both": (1.0, -1.0)}
"""The weight of the class's score in each game; below 0, the network sees what the mask leaves."""
WINDOW = 2 * REACH + 1
RANK_CHANGE = 1e-2
"""Largest difference between masks of a few steps, as a share of the range: the area's loss goes by rank, and one pixel
whose rank rounding changes moves the mask by 2e-4 of its range at 224 x 224, by 5e-3 at 32 x 32."""


@register
class EmbeddedExtremal(LearnedMaskMethod[Extremal]):
    """How much of each pixel the best mask of the given area takes."""

    name: ClassVar[str] = Extremal.name
    loss: ClassVar[Loss] = "logit"
    compared_iterations: ClassVar[int] = 5
    comparison_limit: ClassVar[float] = RANK_CHANGE

    @functools.cached_property
    def family(self) -> SmoothMasks:
        """The family of smooth masks over the input."""
        return SmoothMasks(self.network.size, self.options.smoothness)

    @property
    def signs(self) -> tuple[float, ...]:
        """The weight of the class's score in each game."""
        return SIGNS[self.options.aim]

    @property
    def optimiser(self) -> Momentum:
        """Gradient descent with a memory."""
        return Momentum((1,), self.options.learning_rate)

    def start(self, flow: Flow) -> ir.Value:
        """Emits a grid of undecided parameters."""
        return flow.floats(np.full(self.family.grid, UNDECIDED))

    def bounded(self, flow: Flow, parameters: ir.Value) -> ir.Value:
        """Emits parameters brought into 0..1."""
        return flow.emit("Clip", parameters, flow.floats(0), flow.floats(1))

    def settles_from(self, flow: Flow, steps: ir.Value) -> ir.Value:
        """Emits the first step of the last stage."""
        earlier = flow.emit("Mul", steps, flow.integer(STAGES - 1))
        return flow.emit("Div", earlier, flow.integer(STAGES))

    def soften(self, flow: Flow, parameters: ir.Value) -> Softened:
        """Emits the mask of a grid, and the weights of the parameters in the smooth maxima around each."""
        family, (rows, columns) = self.family, self.family.grid
        windows = flow.emit("MatMul", placing(flow, rows), parameters)
        windows = flow.emit("MatMul", windows, emit_transpose(flow, placing(flow, columns)))
        windows = flow.reshape(windows, rows, WINDOW, columns, WINDOW)
        kernel = flow.floats(family.kernel[:, None])
        exponentials = flow.emit("Exp", flow.emit("Mul", windows, flow.floats(family.kernel[:, None] * SHARPNESS)))
        sums = flow.emit("ReduceSum", exponentials, flow.ints(1, 3), keepdims=1)
        of_ones = flow.floats(family.of_ones[0, :, None, :, None])
        means = flow.emit("Log", flow.emit("Div", sums, flow.floats(family.kernel.size)))
        shares = flow.reshape(flow.emit("Div", means, of_ones), rows, columns)
        derivatives = flow.emit("Mul", exponentials, flow.emit("Div", flow.floats(SHARPNESS), sums))
        weights = flow.emit("Mul", derivatives, flow.emit("Div", kernel, of_ones))
        enlarged = flow.emit("MatMul", flow.floats(family.rows), shares)
        enlarged = flow.emit("MatMul", enlarged, emit_transpose(flow, flow.floats(family.columns)))
        masks = flow.emit("Clip", enlarged, flow.floats(0), flow.floats(1))
        return Softened(flow.reshape(masks, 1, 1, *self.network.size), [weights])

    def pull_back(self, flow: Flow, gradients: ir.Value, soft: Softened) -> ir.Value:
        """Emits gradients with respect to the parameters from those with respect to the mask (1, 1, h, w)."""
        family, (rows, columns) = self.family, self.family.grid
        gradients = flow.reshape(gradients, *self.network.size)
        shares = flow.emit("MatMul", emit_transpose(flow, flow.floats(family.rows)), gradients)
        shares = flow.reshape(flow.emit("MatMul", shares, flow.floats(family.columns)), rows, 1, columns, 1)
        parts = flow.reshape(flow.emit("Mul", soft.others[0], shares), rows * WINDOW, columns * WINDOW)
        along = flow.emit("MatMul", emit_transpose(flow, placing(flow, rows)), parts)
        return flow.emit("MatMul", along, placing(flow, columns))

    def evaluate(
        self, flow: Flow, parameters: ir.Value, soft: Softened, answer: MaskAnswer, step: ir.Value, steps: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Emits the area's weighted loss less the reward, and its gradient with respect to the grid."""
        del parameters
        stage = flow.emit("Div", flow.emit("Mul", step, flow.integer(STAGES)), steps)
        stage = flow.emit("Min", stage, flow.integer(STAGES - 1))  # behind the last step there is none
        weight = flow.emit("Gather", flow.floats([AREA_WEIGHT * 2**number for number in range(STAGES)]), stage)
        loss, gradient = self.area_terms(flow, soft.masks)
        slope = flow.emit("Sub", flow.emit("Mul", weight, gradient), answer.gradient)
        loss = flow.emit("Sub", flow.emit("Mul", weight, loss), answer.objective)
        return loss, self.pull_back(flow, slope, soft)

    def area_terms(self, flow: Flow, masks: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Emits mean (sort(m) - r)^2 of a mask, (1,), and its gradient with respect to the mask."""
        pixels = self.network.size[0] * self.network.size[1]
        kept, one = pixels_in_area(self.options.area, pixels), flow.floats(1)
        flat = flow.reshape(masks, pixels)
        edge = flow.rows(flow.largest(flat, kept), kept - 1, kept)
        same = flow.floats(SAME)
        above = flow.as_type(flow.emit("Greater", flat, flow.emit("Add", edge, same)), FLOAT)
        distances = flow.emit("Abs", flow.emit("Sub", flat, edge))
        at_edge = flow.as_type(flow.emit("LessOrEqual", distances, same), FLOAT)
        missing = flow.emit("Sub", flow.floats(kept), flow.emit("ReduceSum", above, keepdims=1))
        left = flow.emit("Div", missing, flow.emit("ReduceSum", at_edge, keepdims=1))
        wanted = flow.emit("Add", above, flow.emit("Mul", at_edge, left))
        lacking, whole = flow.emit("Sub", one, flat), flow.emit("Sub", one, wanted)
        losses = flow.emit(
            "Add",
            flow.emit("Mul", wanted, flow.emit("Mul", lacking, lacking)),
            flow.emit("Mul", whole, flow.emit("Mul", flat, flat)),
        )
        gradient = flow.emit("Mul", flow.floats(2 / pixels), flow.emit("Sub", flat, wanted))
        return flow.emit("ReduceMean", losses, keepdims=1), flow.reshape(gradient, 1, 1, *self.network.size)


def placing(flow: Flow, cells: int) -> ir.Value:
    """Emits the matrix (cells x window, cells) that lays the windows around cells side by side, 0 beyond the grid."""
    copied = (np.arange(cells)[:, None] + np.arange(-REACH, REACH + 1)).reshape(-1, 1)
    return flow.as_type(flow.emit("Equal", flow.constant(copied, INT64), flow.constant(np.arange(cells), INT64)), FLOAT)


def emit_transpose(flow: Flow, matrix: ir.Value) -> ir.Value:
    """Emits the transpose of a matrix."""
    return flow.emit("Transpose", matrix, perm=[1, 0])
