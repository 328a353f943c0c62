"""A bottleneck ResNet of the drawn shapes, whose strides are in 1 x 1 convolutions. Needs torch.

Source: Kaiming He, Xiangyu Zhang, Shaoqing Ren and Jian Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
figure 5 and section 4.1, https://arxiv.org/abs/1512.03385. As published, a stage's stride is in its first 1 x 1
convolution and in its shortcut, so that three of four places feed neither: what the rules of masking differ in.
"""

from __future__ import annotations

import torch
from shapes_network import build_convolution
from torch import nn

STEM_CHANNELS = 32
WIDTHS = (16, 32, 64)
"""Of the 3 x 3 convolutions, by stage; what comes out is :data:`EXPANSION` times as wide."""
EXPANSION = 4
BLOCKS = 2
"""In each stage."""


class BottleneckBlock(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 pixels beside a shortcut, a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * width
        self.branch = nn.Sequential(
            *build_convolution(channels_in, width, 1, stride, bias=True),
            nn.ReLU(),
            *build_convolution(width, width, 3, 1, bias=True),
            nn.ReLU(),
            *build_convolution(width, channels_out, 1, 1, bias=True),
        )
        same = channels_in == channels_out and stride == 1
        shortcut = build_convolution(channels_in, channels_out, 1, stride, bias=True)
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to (N, C', H / stride, W / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class BottleneckNetwork(nn.Module):
    """A convolution of stride 2, three stages of bottleneck blocks (strides 1, 2, 2), their mean, a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*build_convolution(3, STEM_CHANNELS, 3, 2, bias=True), nn.ReLU()]
        channels = STEM_CHANNELS
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                layers.append(BottleneckBlock(channels, width, stride=2 if stage and not block else 1))
                channels = EXPANSION * width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to logits (N, classes)."""
        return self.classifier(self.layers(image).mean((2, 3)))
