"""Feature maps in a file that explains itself: their sizes, and maps of their sizes enlarged to the image's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.contract import FEATURE_MAP_OUTPUTS
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.network import Network
from masktool.errors import MasktoolError
from masktool.explainers.methods.grad_cam import enlarge
from masktool.messages import Placeholder, parameter


def list_map_outputs(network: Network, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns the outputs of a network that are its feature maps, each with its height and width.

    Args:
        network: the network with gradients.
        names: the names of the feature maps, as the user gave them, for messages.

    Raises:
        MasktoolError: the height and width of a feature map are open.
    """
    found = {name: network.output_named(name) for name in FEATURE_MAP_OUTPUTS}
    return {name: places_of(value, names) for name, value in found.items() if value is not None}


def places_of(feature_map: ir.Value, names: Sequence[str]) -> tuple[int, int]:
    """Returns the height and width of a feature map; MasktoolError where they are open."""
    shape = [] if feature_map.shape is None else feature_map.shape[2:]
    sides = [length for length in shape if isinstance(length, int)]
    if len(sides) != 2:
        raise MasktoolError(
            "the height and width of the feature map are not known before the network runs",
            where=", ".join(names) or None,
            got=feature_map.shape,
            fix="name another with " + parameter("feature_map", Placeholder("NAME")),
        )
    return sides[0], sides[1]


def enlarge_maps(flow: Flow, coarse: ir.Value, places: tuple[int, int], size: tuple[int, int]) -> ir.Value:
    """Emits maps (n, 1, height, width) enlarged to the size of the image, by matrices that hold the explainer's own
    enlargement.
    """
    rows = enlarge(np.eye(places[0], dtype=np.float32), (size[0], places[0]))
    columns = enlarge(np.eye(places[1], dtype=np.float32), (size[1], places[1]))
    found = flow.emit("MatMul", flow.emit("MatMul", flow.floats(rows), coarse), flow.floats(columns.T))
    return flow.typed(found, FLOAT, [None, 1, *size])
