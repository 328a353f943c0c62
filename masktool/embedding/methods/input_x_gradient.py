"""Input times gradient in the graph: one pass forward and back, for a whole batch at once."""

from __future__ import annotations

from typing import ClassVar

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.gradient_figures import emit_completeness_gap
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, register
from masktool.explainers.methods.input_x_gradient import InputXGradient


@register
class EmbeddedInputXGradient(EmbeddedMethod[InputXGradient]):
    """Gradient times the model's input, the channels added up."""

    name: ClassVar[str] = InputXGradient.name
    takes_batches: ClassVar[bool] = True

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the network with its gradient, the product's sum over the channels, and the gap to the logit."""
        network = self.network.differentiable()
        found, _ = network.place_differentiated(flow, asked.image, asked.target, asked.others, one_image=False)
        product = flow.emit("Mul", flow.as_type(asked.image, FLOAT), found[GRADIENT_PREFIX + "image"])
        saliency = self.network.sum_of_channels(flow, product)
        gap = emit_completeness_gap(flow, found[OBJECTIVE], saliency)
        return Explained({name: found[name] for name in network.outputs}, saliency, figures=gap)
