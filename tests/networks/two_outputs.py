"""A small network of two outputs, a segmentation and an embedding, in ONNX and in torch."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from networks.small_graphs import parse

SIZE = (24, 32)
PLACES = (12, 16)
CLASSES, NUMBERS = 4, 5
TWO_OUTPUTS = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[N, 3, 24, 32] image) => (float[N, 4, 12, 16] scores, float[N, 5] embedding, int64[N, 12, 16] labels)
<float[6, 3, 3, 3] k0, float[6] b0, float[8, 6, 3, 3] k1, float[8] b1, float[6, 8, 1, 1] side, float[6, 6, 3, 3] k2,
 float[4, 6, 1, 1] k3, float[4] b3, float[8, 5] weight, float[5] offset, float[4] scales>
{
    c0 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, k0, b0)
    early = Relu(c0)
    c1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(early, k1, b1)
    deep = Relu(c1)
    narrow = Conv(deep, side)
    wide = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (narrow, , scales)
    both = Add(wide, early)
    joined = Conv<pads = [1, 1, 1, 1]>(both, k2)
    late = Relu(joined)
    scores = Conv(late, k3, b3)
    labels = ArgMax<axis = 1, keepdims = 0>(scores)
    pooled = GlobalAveragePool(deep)
    flat = Flatten(pooled)
    embedding = Gemm(flat, weight, offset)
}
"""


def two_outputs() -> onnx.ModelProto:
    """Returns the network, its weights of a size that keeps the scores small."""
    scales = np.array([1, 1, 2, 2], np.float32)
    drawn = {each.name: numpy_helper.to_array(each) for each in parse(TWO_OUTPUTS, scales=scales).graph.initializer}
    weights = {name: each / np.sqrt(each[0].size) for name, each in drawn.items()}
    return parse(TWO_OUTPUTS, **weights | {"scales": scales})


class TwoOutputs(nn.Module):
    """The same in torch, in double precision.

    Args:
        output: the output that it gives: ``scores`` or ``embedding``.
    """

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output
        for each in two_outputs().graph.initializer:
            self.register_buffer(each.name, torch.tensor(numpy_helper.to_array(each)).double())

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (N, 3, 24, 32) to scores (N, 4, 12, 16) or embeddings (N, 5)."""
        early = conv2d(image, self.k0, self.b0, stride=2, padding=1).relu()
        deep = conv2d(early, self.k1, self.b1, stride=2, padding=1).relu()
        if self.output == "embedding":
            return deep.mean(dim=(2, 3)) @ self.weight + self.offset
        wide = interpolate(conv2d(deep, self.side), scale_factor=2.0, mode="nearest")
        late = conv2d(wide + early, self.k2, padding=1).relu()
        return conv2d(late, self.k3, self.b3)


def draw_images(count: int, seed: int = 0) -> np.ndarray:
    """Returns images of the network, float32."""
    return np.random.default_rng(seed).normal(size=(count, 3, *SIZE)).astype(np.float32)
