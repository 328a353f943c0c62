"""The golden case's network, rebuilt in torch from the initializers of its ONNX file."""

from __future__ import annotations

import os

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1, and a 1×1 shortcut; batch normalisation is already folded in."""

    def __init__(self, channels: int, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(width, out_channels, 1)
        self.downsample = nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H / stride, W / stride)."""
        branch = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(branch + self.downsample(x))


class TinyResnet(nn.Module):
    """Two bottlenecks and 20 classes, input (N, 3, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(64, 64, 256, stride=1))
        self.layer2 = nn.Sequential(Bottleneck(256, 128, 512, stride=2))
        self.fc = nn.Linear(512, 20)

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (N, 20)."""
        x = F.max_pool2d(F.relu(self.conv1(image)), 3, 2, padding=1)
        x = self.layer2(self.layer1(x))
        return self.fc(x.mean([2, 3]))


def load_golden_network(path: str | os.PathLike[str]) -> TinyResnet:
    """Reads the weights; the file names a convolution's bias ``conv.weight_bias``."""
    network = TinyResnet().eval()
    weights = {
        entry.name.replace(".weight_bias", ".bias"): torch.from_numpy(onnx.numpy_helper.to_array(entry).copy())
        for entry in onnx.load(path).graph.initializer
        if not entry.name.startswith("val_")  # axes and shapes
    }
    network.load_state_dict(weights)
    return network
