"""The neighbour fill: every missing position gets the mean of its known neighbours, ring by ring."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FILL_EPSILON = 1e-5
"""The paper's ε: keeps 0 / 0 finite where no neighbour is known."""


def neighbor_fill(value: Tensor, mask: Tensor, rounds: int) -> Tensor:
    """Fills what is missing, one ring of pixels a round, and throws the filled mask away.

    x ← M·x + (1−M)·(J∗(M·x)) / (J∗M + ε), then M ← min(M + J∗M, 1), with J a 3×3 box of ones and zero padding.

    Args:
        value: (N, C, H, W), or of a signal (N, C, L), of a volume (N, C, D, H, W).
        mask: (N, 1, H, W), or as the value is.
        rounds: how often; 0 returns the value itself.

    Returns:
        Of the value's shape.
    """
    for _ in range(rounds):
        known = mask * value
        neighbors = box_sum(mask)
        value = known + (1 - mask) * box_sum(known) / (neighbors + FILL_EPSILON)
        mask = (mask + neighbors).clamp(max=1)
    return value


def box_sum(x: Tensor) -> Tensor:
    """Sums each neighbourhood of 3 places a side, with zeros beyond the edge, axis by axis."""
    if x.ndim == 4:
        return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, divisor_override=1)
    for axis in range(2, x.ndim):
        line = x.movedim(axis, -1)
        padded = F.pad(line, (1, 1))
        x = (padded[..., :-2] + line + padded[..., 2:]).movedim(-1, axis)
    return x
