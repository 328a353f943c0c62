"""LayerCAM in the graph: one pass forward and back to all feature maps, for a whole batch at once."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from masktool.contract import GRADIENT_PREFIX
from masktool.embedding.feature_maps import enlarge_maps, list_map_outputs
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, EmbeddedMethod, Explained, register
from masktool.explainers.feature_maps import without_feature_map
from masktool.explainers.methods.layercam import SMALLEST, LayerCam
from masktool.exported_files import name_feature_maps


@register
class EmbeddedLayerCam(EmbeddedMethod[LayerCam]):
    """The features in favour of the class, each place with a weight of its own."""

    name: ClassVar[str] = LayerCam.name
    takes_batches: ClassVar[bool] = True

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """The names of the feature maps; none for the last one."""
        return name_feature_maps(self.options.feature_map)

    def emit(self, flow: Flow, asked: Asked) -> Explained:
        """Emits the network with its gradients, the sum of each map's channels, their enlargement and the maximum."""
        network = self.network.differentiable(feature_maps=self.feature_maps)
        places = list_map_outputs(network, self.feature_maps)
        if not places:
            metadata = self.network.metadata
            raise without_feature_map(self.options.title, metadata.copies, metadata.source)
        found, _ = network.place_differentiated(flow, asked.image, asked.target, asked.others, one_image=False)
        fewest = min(height * width for height, width in places.values())
        maps = []
        for name, (height, width) in places.items():
            coarse = self.weigh_places(flow, found[name], found[GRADIENT_PREFIX + name])
            if len(places) > 1:
                coarse = self.scale_map(flow, coarse, early=height * width > fewest)
            maps.append(enlarge_maps(flow, coarse, (height, width), self.network.size))
        saliency = maps[0] if len(maps) == 1 else flow.emit("Max", *maps)
        predictions = {name: found[name] for name in network.outputs}
        return Explained(predictions, flow.typed(saliency, FLOAT, [None, 1, *self.network.size]))

    def weigh_places(self, flow: Flow, features: ir.Value, gradients: ir.Value) -> ir.Value:
        """Emits the sum (n, 1, h, w) of the channels, each place times its gradient where that is above 0; or 0."""
        weighted = flow.emit("Mul", features, flow.emit("Relu", gradients))
        return flow.emit("Relu", flow.emit("ReduceSum", weighted, flow.ints(1), keepdims=1))

    def scale_map(self, flow: Flow, coarse: ir.Value, *, early: bool) -> ir.Value:
        """Emits maps as shares of the largest value of each, those of early layers brought out."""
        largest = flow.emit("ReduceMax", coarse, flow.ints(1, 2, 3), keepdims=1)
        shares = flow.emit("Div", coarse, flow.emit("Max", largest, flow.floats(SMALLEST)))
        return flow.emit("Tanh", flow.emit("Mul", shares, flow.floats(self.options.gamma))) if early else shares
