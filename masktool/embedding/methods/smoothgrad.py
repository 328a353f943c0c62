"""SmoothGrad in the graph: a loop over noisy copies of the image, with the network and its gradient in its body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import ClassVar

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, Explained, register
from masktool.embedding.noise import emit_copies, emit_powers_along
from masktool.embedding.stepping import COUNT, Stepped, SteppingMethod
from masktool.explainers.gaussian_noise import GaussianNoise
from masktool.explainers.methods.smoothgrad import SmoothGrad


@register
class EmbeddedSmoothGrad(SteppingMethod[SmoothGrad]):
    """Largest magnitude among the channels of the mean gradient of noisy images."""

    name: ClassVar[str] = SmoothGrad.name
    n_sums: ClassVar[int] = 2
    fewest_steps: ClassVar[int] = 2

    @cached_property
    def noise(self) -> GaussianNoise:
        """The noise, each copy in the shape of one image."""
        return GaussianNoise(self.network.seed, prod(self.network.image_shape))

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:
        """Emits the noise's standard deviation, and what its copies are made from."""
        ends = [flow.emit(end, asked.image, keepdims=1) for end in ("ReduceMax", "ReduceMin")]
        deviation = flow.emit("Mul", flow.emit("Sub", *ends), flow.floats(self.options.noise_level))
        return {"deviation": deviation, **emit_powers_along(flow, self.noise)}

    def images(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the image with noise added; row 0 is the image itself."""
        copies = flow.emit("Max", flow.emit("Sub", rows, flow.integer(1)), flow.integer(0))
        noise = flow.reshape(emit_copies(flow, self.noise, copies, asked.extra), -1, *self.network.image_shape)
        deviations = flow.emit("Mul", self.are_steps(flow, rows, asked), asked.extra["deviation"])
        return flow.emit("Add", asked.image, flow.emit("Mul", noise, deviations))

    def add(
        self, flow: Flow, rows: ir.Value, gradients: ir.Value, sums: Sequence[ir.Value], asked: Asked
    ) -> list[ir.Value]:
        """Emits the sums of the gradients and of their squares."""
        counted = flow.emit("Mul", gradients, self.are_steps(flow, rows, asked))
        return [
            flow.emit("Add", total, self.sum_of_rows(flow, values))
            for total, values in zip(sums, (counted, flow.emit("Mul", counted, counted)), strict=True)
        ]

    def finish(self, flow: Flow, stepped: Stepped, asked: Asked) -> Explained:
        """Emits the largest mean among the channels, and the standard error of the means that are shown."""
        count, axis = flow.as_type(asked.extra[COUNT], FLOAT), self.network.channel_axis
        mean, mean_square = (flow.emit("Div", total, count) for total in stepped.sums)
        sizes = flow.emit("Abs", mean)
        shown = flow.emit("ArgMax", sizes, axis=axis, keepdims=1)
        spread = flow.emit("Sub", mean_square, flow.emit("Mul", mean, mean))
        variances = flow.emit("Div", spread, flow.emit("Sub", count, flow.floats(1)))
        errors = flow.bounded(flow.emit("GatherElements", variances, shown, axis=axis), low=0)
        error = flow.emit("Sqrt", flow.emit("ReduceMean", errors, keepdims=0))
        largest = flow.emit("GatherElements", sizes, shown, axis=axis)
        figures = {"attributions_error": flow.typed(flow.reshape(error, 1), FLOAT, [1])}
        return Explained({}, self.network.maps_first(flow, largest), figures=figures)
