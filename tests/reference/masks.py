"""Masks with edges, holes, corners and specks, binary and soft."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID_CELL = 16
"""Pixels a side of a grid cell; half of them are kept."""


def binary_masks(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws five masks: the left half, a quarter, half the cells of a grid, a blob, a checker of superpixel-like blobs.

    Returns:
        (5, 1, height, width) float32 of 0 and 1.
    """
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.rand(1, 1, -(-height // GRID_CELL), -(-width // GRID_CELL), generator=generator) < 0.5
    grid = F.interpolate(cells.float(), scale_factor=GRID_CELL)[0, 0, :height, :width]
    blob = ((rows - 0.52 * height) / (0.13 * height)) ** 2 + ((columns - 0.48 * width) / (0.09 * width)) ** 2 < 1
    masks = [
        columns < width // 2,
        (rows >= height // 2) & (columns >= width // 2),
        grid,
        blob,
        superpixels(size, generator),
    ]
    return torch.stack([mask.float() for mask in masks])[:, None]


def superpixels(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Keeps every other cell of a checker whose lines are bent by smooth noise; (height, width) bool."""
    noise = torch.randn(1, 2, 6, 6, generator=generator)
    bend_rows, bend_columns = F.interpolate(noise, size, mode="bilinear", align_corners=True)[0] * 0.06
    rows = torch.linspace(0, 6, size[0])[:, None] + 6 * bend_rows
    columns = torch.linspace(0, 6, size[1])[None] + 6 * bend_columns
    return (rows.floor() + columns.floor()) % 2 == 0


def soft_masks(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws two masks with values in between: a ramp beside a missing strip, and smooth noise cut off at 0 and 1.

    Returns:
        (2, 1, height, width) float32 in [0, 1].
    """
    ramp = torch.linspace(-0.3, 1.0, size[1]).clamp(min=0).expand(size)
    noise = torch.randn(1, 1, 7, 7, generator=generator)
    cloud = (F.interpolate(noise, size, mode="bilinear", align_corners=True)[0, 0] * 0.8 + 0.4).clamp(0, 1)
    return torch.stack([ramp, cloud])[:, None]
