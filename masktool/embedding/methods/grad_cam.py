"""Grad-CAM in the graph: one pass forward and back to the feature map, for a whole batch at once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.contract import FEATURE_MAP, GRADIENT_PREFIX
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, register
from masktool.errors import MasktoolError
from masktool.explainers.methods.grad_cam import GradCam, enlarge, without_feature_map
from masktool.messages import Placeholder, parameter


@register
class EmbeddedGradCam(EmbeddedMethod[GradCam]):
    """The features in favour of the class, at each place of the feature map."""

    name: ClassVar[str] = GradCam.name
    takes_batches: ClassVar[bool] = True

    @property
    def feature_map(self) -> str | None:
        """The name of the feature map; None for the last one."""
        return self.options.feature_map

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the network with its gradient, the weighted sum of the feature map's channels, and its enlargement."""
        network = self.network.differentiable(feature_map=self.feature_map)
        places = self.places_of(network.output_named(FEATURE_MAP))
        found, _ = network.place_differentiated(flow, asked.image, asked.target, asked.others, one_image=False)
        weights = flow.emit("ReduceMean", found[GRADIENT_PREFIX + FEATURE_MAP], flow.ints(2, 3), keepdims=1)
        weighted = flow.emit("Mul", found[FEATURE_MAP], weights)
        coarse = flow.emit("ReduceSum", weighted, flow.ints(1), keepdims=1)
        if self.options.relu:
            coarse = flow.emit("Relu", coarse)
        saliency = self.enlarged(flow, coarse, places)
        return Explained({name: found[name] for name in network.outputs}, saliency)

    def places_of(self, feature_map: ir.Value | None) -> tuple[int, int]:
        """Returns the height and width of the feature map; MasktoolError where the network has none."""
        if feature_map is None:
            raise without_feature_map(self.network.metadata.copies, self.network.metadata.source)
        places = (
            [] if feature_map.shape is None else [length for length in feature_map.shape[2:] if isinstance(length, int)]
        )
        if len(places) != len(self.network.size):
            raise MasktoolError(
                "the height and width of the feature map are not known before the network runs",
                where=self.feature_map,
                got=feature_map.shape,
                fix="name another with " + parameter("feature_map", Placeholder("NAME")),
            )
        return places[0], places[1]

    def enlarged(self, flow: Flow, coarse: ir.Value, places: tuple[int, int]) -> ir.Value:
        """Emits maps (n, 1, height, width) enlarged to the size of the image, by matrices made of the
        explainer's own enlargement.
        """
        rows = enlarge(np.eye(places[0], dtype=np.float32), (self.network.size[0], places[0]))
        columns = enlarge(np.eye(places[1], dtype=np.float32), (self.network.size[1], places[1]))
        found = flow.emit("MatMul", flow.emit("MatMul", flow.floats(rows), coarse), flow.floats(columns.T))
        return flow.typed(found, FLOAT, [None, 1, *self.network.size])
