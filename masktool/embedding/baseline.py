"""The baseline of a method in the graph: constants stored small, or what is computed from the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from masktool.baselines import BLUR_SIGMA, InputShape, constant_baseline, draw_noise, require_preprocessing
from masktool.contract import Preprocessing
from masktool.embedding.compact import store_integers
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import ExplainedNetwork
from masktool.explainers.baseline_image import blur_along
from masktool.normalisation import LEVELS, normalise, normalise_levels


def emit_baseline(flow: Flow, network: ExplainedNetwork, image: ir.Value, baseline: str) -> ir.Value:
    """Emits a baseline as :func:`masktool.explainers.baseline_image.baseline_image` has it.

    Args:
        flow: the graph to emit into.
        network: the network that is explained.
        image: the image, (1, ...) float32.
        baseline: the name or colour of the baseline.

    Returns:
        The baseline in float32, of the image's shape or of length 1 along axes on which it does not vary.

    Raises:
        MasktoolError: the network's preprocessing, which the colour needs, is unknown or for other channels.
    """
    if baseline == "image-mean":
        return flow.emit("ReduceMean", image, flow.ints(*network.spatial_axes), keepdims=1)
    if baseline == "blur":
        return emit_blurred(flow, network, image)
    where, shape = f"baseline {baseline}", (network.n_channels, *network.size)
    if baseline == "noise":
        return emit_noise(flow, network, shape, where)
    preprocessing = network.metadata.preprocessing
    return flow.floats(constant_baseline(baseline, shape, preprocessing, network.layout, where=where))


def emit_blurred(flow: Flow, network: ExplainedNetwork, image: ir.Value) -> ir.Value:
    """Emits the blur of the image: edges are repeated, and the kernel runs along columns and then along rows."""
    first = network.channel_axis == 1
    planes = image if first else flow.emit("Transpose", image, perm=[0, 3, 1, 2])
    kernel = blur_kernel(network.size)
    reach, channels = len(kernel) // 2, network.n_channels
    padded = flow.emit("Pad", planes, flow.ints(0, 0, reach, reach, 0, 0, reach, reach), mode="edge")
    for shape in ((-1, 1), (1, -1)):
        weights = np.broadcast_to(kernel.reshape(shape), (channels, 1, *kernel.reshape(shape).shape))
        padded = flow.emit("Conv", padded, flow.floats(weights), group=channels)
    return padded if first else flow.emit("Transpose", padded, perm=[0, 2, 3, 1])


def blur_kernel(size: tuple[int, int]) -> np.ndarray:
    """Returns the weights of the blur along one axis: what the explainer's blur makes of a single 1, zeros left out."""
    reach = int(np.ceil(min(size) * BLUR_SIGMA * BLUR_SPAN))
    impulse = np.zeros(2 * reach + 1, np.float32)
    impulse[reach] = 1
    kernel = blur_along(impulse, [0], size)
    return kernel[np.flatnonzero(kernel)[0] : np.flatnonzero(kernel)[-1] + 1]


def emit_noise(flow: Flow, network: ExplainedNetwork, shape: InputShape, where: str) -> ir.Value:
    """Emits noise, stored as pixels in 0..255 and normalised in the graph."""
    preprocessing = require_preprocessing(network.metadata.preprocessing, network.n_channels, where)
    pixels = normalise(draw_noise(shape, network.seed, where), unscaled(preprocessing))
    levels = normalise_levels(preprocessing)
    offset, slope = levels[0], (levels[-1] - levels[0]) / (LEVELS - 1)
    stored = store_integers(flow, network.in_layout(pixels).astype(np.int64))
    scaled = flow.emit("Mul", flow.as_type(stored, FLOAT), flow.floats(network.in_layout(slope[None, None])))
    return flow.emit("Add", scaled, flow.floats(network.in_layout(offset[None, None])))


def unscaled(preprocessing: Preprocessing) -> Preprocessing:
    """Returns a preprocessing that orders channels as the given one does, and leaves pixels as they are."""
    channels = len(preprocessing.mean)
    return dataclasses.replace(preprocessing, scale=1.0, mean=(0.0,) * channels, std=(1.0,) * channels)


BLUR_SPAN = 6
"""Standard deviations within which every weight of the blur lies: it ends after 4."""
