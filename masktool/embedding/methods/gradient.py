"""Gradient in the graph: one pass forward and back, for a whole batch at once."""

from __future__ import annotations

from typing import ClassVar

from masktool.contract import GRADIENT_PREFIX
from masktool.embedding.flow import Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, register
from masktool.explainers.methods.gradient import GradientMagnitude


@register
class EmbeddedGradient(EmbeddedMethod[GradientMagnitude]):
    """Largest magnitude of the gradient among the channels of a pixel."""

    name: ClassVar[str] = GradientMagnitude.name
    takes_batches: ClassVar[bool] = True

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the network with its gradient, and the largest magnitude among the channels."""
        network = self.network.differentiable()
        found, _ = network.place_differentiated(flow, asked.image, asked.target, asked.others, one_image=False)
        sizes = flow.emit("Abs", found[GRADIENT_PREFIX + "image"])
        largest = flow.emit("ReduceMax", sizes, flow.ints(self.network.channel_axis), keepdims=1)
        return Explained({name: found[name] for name in network.outputs}, self.network.maps_first(flow, largest))
