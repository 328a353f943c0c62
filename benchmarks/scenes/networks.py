"""Small networks for pictures of 96 x 96: a detector, a segmenter and a classifier on the same layers. Needs torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

CHANNELS = (16, 32, 64)
STRIDE = 8
"""Pixels from one place of the last map to the next."""
ANCHOR = 24.0
"""Side in pixels of the box that a detector's place starts from: one that an object of a scene fits into."""
BOX_NUMBERS = 5
"""Numbers of a detection in front of its classes: centre, width, height, objectness."""


def convolve(channels_in: int, channels_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Builds a convolution with its normalisation and activation."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions beside what they read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            convolve(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to the same shape."""
        return torch.relu(x + self.branch(x))


class Trunk(nn.Module):
    """Maps at strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.first = convolve(3, first, 2)
        self.second = nn.Sequential(convolve(first, second, 2), Residual(second))
        self.third = nn.Sequential(convolve(second, third, 2), Residual(third), Residual(third))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps normalised pictures (N, 3, H, W) to their maps, the largest first."""
        half = self.first(image)
        quarter = self.second(half)
        return half, quarter, self.third(quarter)


class Classifier(nn.Module):
    """The maximum over the last map's places, which no background outvotes, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.linear = nn.Linear(CHANNELS[-1], classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to logits (N, classes)."""
        return self.linear(self.trunk(image)[-1].amax((2, 3)))


class Segmenter(nn.Module):
    """An encoder and a decoder that reads the encoder's larger maps too."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.trunk = Trunk()
        self.sides = nn.ModuleList([convolve(third, second, kernel=1), convolve(second, first, kernel=1)])
        self.joins = nn.ModuleList([convolve(second, second), convolve(first, first)])
        self.scores = nn.Conv2d(first, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to logits (N, classes, H / 2, W / 2)."""
        half, quarter, found = self.trunk(image)
        for side, join, beside in zip(self.sides, self.joins, (quarter, half), strict=True):
            found = join(nn.functional.interpolate(side(found), scale_factor=2.0, mode="nearest") + beside)
        return self.scores(found)


class Detector(nn.Module):
    """One detection for each place of the last map, in the layout and with the formulas of YOLOv5's head.

    Args:
        classes: number of classes.
        size: height and width of the pictures in pixels.
    """

    grid: torch.Tensor

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Sequential(
            convolve(CHANNELS[-1], CHANNELS[-1]), nn.Conv2d(CHANNELS[-1], BOX_NUMBERS + classes, 1)
        )
        rows, columns = torch.meshgrid(*[torch.arange(size // STRIDE, dtype=torch.float32)] * 2, indexing="ij")
        self.register_buffer("grid", torch.stack([columns, rows], -1).reshape(1, -1, 2), persistent=False)

    def raw(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to what the head gives, (N, places, 5 + classes), for the losses."""
        return self.head(self.trunk(image)[-1]).flatten(2).transpose(1, 2)

    def boxes(self, raw: torch.Tensor) -> torch.Tensor:
        """Returns the boxes (N, places, 4) in what the head gives: centre, width and height in pixels."""
        found = torch.sigmoid(raw[..., :4])
        centres = (found[..., :2] * 2 - 0.5 + self.grid) * STRIDE
        return torch.cat([centres, (found[..., 2:] * 2) ** 2 * ANCHOR], -1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps normalised pictures (N, 3, H, W) to boxes, objectness and class scores, (N, places, 5 + classes)."""
        raw = self.raw(image)
        return torch.cat([self.boxes(raw), torch.sigmoid(raw[..., 4:])], -1)


def copy_trunk(network: nn.Module, path: Path) -> None:
    """Gives a network the trunk of one that was exported, in whose convolutions the normalisations are folded.

    Where the normalisations stay in evaluation mode, the trunk then gives what the other network's does.

    Args:
        network: the network, with a :class:`Trunk` as ``trunk``.
        path: the plain ONNX file of the other.
    """
    stored = onnx.load(path).graph.initializer
    given = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in stored}
    state = network.state_dict()
    for name, weight in given.items():
        if name.startswith("trunk.") and name.endswith(".weight"):
            folder, _, position = name.removesuffix(".weight").rpartition(".")
            normalisation = f"{folder}.{int(position) + 1}"  # stands behind its convolution
            zeros, ones = torch.zeros(len(weight)), torch.ones(len(weight))
            state |= {
                name: weight,
                f"{normalisation}.bias": given[f"{name}_bias"],
                f"{normalisation}.weight": ones,
                f"{normalisation}.running_mean": zeros,
                f"{normalisation}.running_var": ones,
            }
    network.load_state_dict(state)
