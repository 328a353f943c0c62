"""The CIFAR-10 ResNets of He et al. ("Deep Residual Learning for Image Recognition", 2015, section 4.2, 1512.03385).

Three groups of n blocks with 16, 32 and 64 channels; 6n + 2 layers with weights. Shortcuts carry no weights (option A):
where a group halves the resolution they take every second pixel and fill the added channels with zeros, half of them on
either side.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

GROUP_CHANNELS = (16, 32, 64)
CLASSES = 10


class ZeroPaddedShortcut(nn.Module):
    """Every second pixel, and zeros for the added channels."""

    def __init__(self, added_channels: int) -> None:
        super().__init__()
        self.added_channels = added_channels

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        half = self.added_channels // 2
        return functional.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else ZeroPaddedShortcut(channels - channels_in)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        residual = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(residual)) + self.shortcut(features))


class CifarResNet(nn.Module):
    """The network with ``blocks`` blocks per group, for images (N, 3, 32, 32)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        first, second, third = GROUP_CHANNELS
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = make_group(first, first, blocks, stride=1)
        self.layer2 = make_group(first, second, blocks, stride=2)
        self.layer3 = make_group(second, third, blocks, stride=2)
        self.linear = nn.Linear(third, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean(dim=(2, 3)))


def make_group(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Builds one group; its first block changes channels and resolution."""
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet20() -> CifarResNet:
    return CifarResNet(3)


def resnet56() -> CifarResNet:
    return CifarResNet(9)
