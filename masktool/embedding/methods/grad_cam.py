"""Grad-CAM in the graph: one pass forward and back to the feature map, for a whole batch at once."""

from __future__ import annotations

from typing import ClassVar

from masktool.contract import FEATURE_MAP, GRADIENT_PREFIX
from masktool.embedding.feature_maps import enlarge_maps, list_map_outputs
from masktool.embedding.flow import Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, register
from masktool.explainers.feature_maps import without_feature_map
from masktool.explainers.methods.grad_cam import GradCam


@register
class EmbeddedGradCam(EmbeddedMethod[GradCam]):
    """The features in favour of the class, at each place of the feature map."""

    name: ClassVar[str] = GradCam.name
    takes_batches: ClassVar[bool] = True

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """The name of the feature map; none for the last one."""
        return () if self.options.feature_map is None else (self.options.feature_map,)

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the network with its gradient, the weighted sum of the feature map's channels, and its enlargement."""
        network = self.network.differentiable(feature_maps=self.feature_maps)
        places = list_map_outputs(network, self.feature_maps)
        if not places:
            metadata = self.network.metadata
            raise without_feature_map(self.options.title, metadata.copies, metadata.source)
        found, _ = network.place_differentiated(flow, asked.image, asked.target, asked.others, one_image=False)
        weights = flow.emit("ReduceMean", found[GRADIENT_PREFIX + FEATURE_MAP], flow.ints(2, 3), keepdims=1)
        weighted = flow.emit("Mul", found[FEATURE_MAP], weights)
        coarse = flow.emit("ReduceSum", weighted, flow.ints(1), keepdims=1)
        if self.options.relu:
            coarse = flow.emit("Relu", coarse)
        saliency = enlarge_maps(flow, coarse, places[FEATURE_MAP], self.network.size)
        return Explained({name: found[name] for name in network.outputs}, saliency)
