"""The demo's network: a residual CNN of 16, 32 and 64 channels, with biases or without. Needs torch."""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (16, 32, 64)


class UncentredNorm(nn.Module):
    """Batch normalisation without centring and without shift: each channel over the root of its mean square.

    In evaluation mode it is a constant factor per channel, so that a network made of it, of convolutions and linear
    layers without bias and of ReLUs is positively homogeneous: a logit equals the sum of gradient times input exactly.

    Args:
        channels: of the input (N, C, H, W).
        momentum: share of the newest batch in the running mean square.
        eps: added to the mean square, as in torch's own batch normalisation.
    """

    mean_square: torch.Tensor
    centre: torch.Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("mean_square", torch.ones(channels))
        self.register_buffer("centre", torch.zeros(channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises (N, C, H, W); in training mode by the batch's own mean square, which it also takes note of."""
        if not self.training:
            return nn.functional.batch_norm(x, self.centre, self.mean_square, self.weight, self.centre, eps=self.eps)
        mean_square = x.square().mean(dim=(0, 2, 3))
        with torch.no_grad():
            self.mean_square.lerp_(mean_square, self.momentum)
        return x * (self.weight * torch.rsqrt(mean_square + self.eps))[:, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *build_convolution(channels_in, channels_out, 3, stride, bias),
            nn.ReLU(),
            *build_convolution(channels_out, channels_out, 3, 1, bias),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*build_convolution(channels_in, channels_out, 1, stride, bias))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to (N, C', H / stride, W / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ShapesNetwork(nn.Module):
    """A convolution, three residual blocks (strides 1, 2, 2), the mean or maximum over space and a linear layer.

    Args:
        classes: number of logits.
        bias: False leaves out every additive constant, see :class:`UncentredNorm`, and takes the maximum over space:
            nothing but a bias could keep the background out of a mean, and with the mean training never leaves chance.
    """

    def __init__(self, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(*build_convolution(3, CHANNELS[0], 3, 1, bias), nn.ReLU())
        self.blocks = nn.Sequential(
            ResidualBlock(CHANNELS[0], CHANNELS[0], 1, bias),
            ResidualBlock(CHANNELS[0], CHANNELS[1], 2, bias),
            ResidualBlock(CHANNELS[1], CHANNELS[2], 2, bias),
        )
        self.pool = nn.AdaptiveAvgPool2d(1) if bias else nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(CHANNELS[-1], classes, bias=bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to logits (N, classes)."""
        return self.classifier(self.pool(self.blocks(self.stem(image))).flatten(1))


def build_convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int, bias: bool
) -> tuple[nn.Conv2d, nn.Module]:
    """Builds a convolution and its normalisation; the additive constant, if any, is the normalisation's."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels_out) if bias else UncentredNorm(channels_out)
