"""A small network with gradients and a head, on which every method runs."""

import numpy as np
import onnx
from networks.small_graphs import parse

import masktool

SMALL_NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
small (float[N, 3, 56, 64] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] k0, float[6] b0, float[8, 6, 3, 3] k1, float[8] b1, float[8, 4] weight, float[4] offset>
{
    c0 = Conv<pads = [1, 1, 1, 1], strides = [4, 4]>(image, k0, b0)
    early = Relu(c0)
    c1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(early, k1, b1)
    late = Relu(c1)
    pooled = GlobalAveragePool(late)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight, offset)
}
"""
SMALL_SIZE = (56, 64)


def small_network():
    """Returns the network, its weights small so that no probability is rounded to 1."""
    model = parse(SMALL_NETWORK)
    return parse(
        SMALL_NETWORK, **{each.name: 0.25 * onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    )


def export_small(path, **options):
    """Exports the network; returns the path."""
    options = {"gradient": "logit", "head": "last"} | options
    masktool.export(small_network(), path, output_kind="logits", **options)
    return path


def draw_input(seed):
    """Returns an input of the network."""
    return np.random.default_rng(seed).normal(size=(3, *SMALL_SIZE)).astype(np.float32)
