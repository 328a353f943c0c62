"""NeuroMask in the graph: a map from a grid, or from levels of one byte for each pixel, learned by RMSProp.

Sums over windows are taken in the order of the explainer's, so that the loss's own part has the same bits.
"""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from masktool.contract import Loss
from masktool.embedding.compact import store_integers
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.learned_mask import LearnedMaskMethod, MaskAnswer, Softened
from masktool.embedding.method import register
from masktool.explainers.learning import RmsProp
from masktool.explainers.methods.neuromask import (
    LEVEL_STEP,
    LOWEST_LEVEL,
    RANGE,
    GridMaps,
    NeuroMask,
    PixelMaps,
    Setting,
    draw_levels,
)

STEEP = 1e-2
"""Largest difference between masks of two steps, as a share of the range: on a drawn picture SqueezeNet's are 6e-4
apart after two, and .01 after three, where activations lie on either side of 0."""


@register
class EmbeddedNeuroMask(LearnedMaskMethod[NeuroMask]):
    """How much of each pixel a small smooth mask keeps that preserves the class."""

    name: ClassVar[str] = NeuroMask.name
    loss: ClassVar[Loss] = "log-softmax"
    compared_iterations: ClassVar[int] = 2
    comparison_limit: ClassVar[float] = STEEP

    @property
    def setting(self) -> Setting:
        """The weights of the loss, the temperature and the side of the Laplacian."""
        return self.options.choose(self.network.size)

    @property
    def optimiser(self) -> RmsProp:
        """RMSProp."""
        return RmsProp((1,), self.options.learning_rate, first_square=self.family.first_square)

    @property
    def family(self) -> PixelMaps | GridMaps:
        """The maps that there may be."""
        return self.options.family(self.network.size)

    def start(self, flow: Flow) -> ir.Value:
        """Emits the grid, or the map that the seed gives."""
        if isinstance(self.family, GridMaps):
            return flow.floats(self.family.start(self.network.seed)[None])
        levels = store_integers(flow, draw_levels(self.network.seed, self.network.size)[None])
        steps = flow.emit("Mul", flow.as_type(levels, FLOAT), flow.floats(LEVEL_STEP))
        return flow.typed(flow.emit("Add", steps, flow.floats(LOWEST_LEVEL)), FLOAT, [1, 1, *self.network.size])

    def soften(self, flow: Flow, parameters: ir.Value) -> Softened:
        """Emits sigmoid(w / T), by the hyperbolic tangent, and the map w."""
        maps = parameters
        if isinstance(self.family, GridMaps):
            rows, columns = self.family.matrices
            maps = flow.emit("MatMul", flow.emit("MatMul", flow.floats(rows), parameters), flow.floats(columns.T))
        scaled = flow.emit("Div", maps, flow.floats(self.setting.temperature))
        half = flow.floats(0.5)
        tangent = flow.emit("Tanh", flow.emit("Mul", half, scaled))
        return Softened(flow.emit("Mul", half, flow.emit("Add", flow.floats(1), tangent)), [maps])

    def pull_back(self, flow: Flow, gradients: ir.Value) -> ir.Value:
        """Emits gradients with respect to the parameters from those with respect to the map."""
        if not isinstance(self.family, GridMaps):
            return gradients
        rows, columns = self.family.matrices
        return flow.emit("MatMul", flow.emit("MatMul", flow.floats(rows.T), gradients), flow.floats(columns))

    def attributions(self, flow: Flow, masks: ir.Value) -> ir.Value:
        """Emits the mask whose outermost rows and columns repeat their neighbours further in."""
        margin = self.setting.kernel_size // 2
        inside = crop(flow, masks, (margin, margin), self.inner)
        return flow.emit("Pad", inside, flow.ints(0, 0, margin, margin, 0, 0, margin, margin), mode="edge")

    @property
    def inner(self) -> tuple[int, int]:
        """(height, width) of what the Laplacian is centred on."""
        height, width = self.network.size
        return height - self.setting.kernel_size + 1, width - self.setting.kernel_size + 1

    def evaluate(
        self, flow: Flow, parameters: ir.Value, soft: Softened, answer: MaskAnswer, step: ir.Value, steps: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Emits the cross-entropy, the mask's size and its roughness, as ``evaluate_maps`` returns them."""
        del parameters, step, steps
        setting, pixels, inner = self.setting, self.network.size[0] * self.network.size[1], self.inner
        (maps,) = soft.others
        raised = flow.emit("Add", maps, flow.floats(RANGE))
        residuals = self.laplacian(flow, maps, self.network.size)
        sizes = flow.emit("ReduceMean", flow.emit("Abs", raised), flow.ints(1, 2, 3), keepdims=0)
        energies = flow.emit("ReduceMean", flow.emit("Mul", residuals, residuals), flow.ints(1, 2, 3), keepdims=0)
        own = flow.emit("Add", scaled(flow, sizes, setting.lambda_s), scaled(flow, energies, setting.lambda_sp))
        loss = flow.emit("Sub", own, scaled(flow, answer.objective, setting.lambda_p))
        shrinking = scaled(flow, flow.sign(raised), setting.lambda_s / pixels)
        margin = setting.kernel_size - 1
        padded = flow.emit("Pad", residuals, flow.ints(0, 0, margin, margin, 0, 0, margin, margin))
        outer = (inner[0] + 2 * margin, inner[1] + 2 * margin)
        smoothing = scaled(flow, self.laplacian(flow, padded, outer), 2 * setting.lambda_sp / (inner[0] * inner[1]))
        slope = flow.emit("Mul", soft.masks, flow.emit("Sub", flow.floats(1), soft.masks))
        slope = flow.emit("Div", slope, flow.floats(setting.temperature))
        recognising = flow.emit("Mul", scaled(flow, answer.gradient, setting.lambda_p), slope)
        return loss, self.pull_back(flow, flow.emit("Sub", flow.emit("Add", shrinking, smoothing), recognising))

    def laplacian(self, flow: Flow, maps: ir.Value, size: tuple[int, int]) -> ir.Value:
        """Emits every value times k^2 less the sum of the k x k values around it, of maps of (height, width).

        The operator's adjoint is the operator itself on residuals with k - 1 zeros around them.
        """
        side = self.setting.kernel_size
        height, width = size[0] - side + 1, size[1] - side + 1
        centres = crop(flow, maps, (side // 2, side // 2), (height, width))
        return flow.emit("Sub", scaled(flow, centres, side**2), emit_box_sum(flow, maps, side, size))


def emit_box_sum(flow: Flow, maps: ir.Value, side: int, size: tuple[int, int]) -> ir.Value:
    """Emits the sums over all windows of side x side that lie within maps (1, 1, h, w)."""
    height, width = size[0] - side + 1, size[1] - side + 1
    rows = add_in_turn(flow, [crop(flow, maps, (offset, 0), (height, size[1])) for offset in turns(side)])
    return add_in_turn(flow, [crop(flow, rows, (0, offset), (height, width)) for offset in turns(side)])


def turns(side: int) -> tuple[int, ...]:
    """Returns the offsets of a window's rows or columns in the order in which the explainer adds them."""
    return (*range(1, side), 0)


def add_in_turn(flow: Flow, values: list[ir.Value]) -> ir.Value:
    """Emits the sum of values, one after the other."""
    total, *others = values
    for value in others:
        total = flow.emit("Add", total, value)
    return total


def crop(flow: Flow, maps: ir.Value, corner: tuple[int, int], size: tuple[int, int]) -> ir.Value:
    """Emits the part of maps (1, 1, h, w) of (height, width) below and right of a corner."""
    ends = (corner[0] + size[0], corner[1] + size[1])
    return flow.emit("Slice", maps, flow.ints(*corner), flow.ints(*ends), flow.ints(2, 3))


def scaled(flow: Flow, values: ir.Value, factor: float) -> ir.Value:
    """Emits values times a number."""
    return flow.emit("Mul", values, flow.floats(factor))
