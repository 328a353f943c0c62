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
        value: (N, C, H, W).
        mask: (N, 1, H, W).
        rounds: how often; 0 returns the value itself.

    Returns:
        (N, C, H, W).
    """
    for _ in range(rounds):
        known = mask * value
        neighbors = box_sum(mask)
        value = known + (1 - mask) * box_sum(known) / (neighbors + FILL_EPSILON)
        mask = (mask + neighbors).clamp(max=1)
    return value


def box_sum(x: Tensor) -> Tensor:
    """Sums each 3×3 neighbourhood, with zeros beyond the edge."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, divisor_override=1)
