"""An activation that carries its mask."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Carried:
    """An activation whose last two axes are height and width.

    Attributes:
        value: (N, ..., H, W), exactly 0 wherever the mask is 0.
        mask: (N, 1, H, W), 1 = kept, 0 = missing.
    """

    value: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        """Refuses a mask that has lost its activation: a wrong rule should stop here, not three layers later."""
        if self.mask.shape != (self.value.shape[0], 1, *self.value.shape[-2:]):
            raise ValueError(f"mask {tuple(self.mask.shape)} does not belong to the value {tuple(self.value.shape)}")


def carry(value: Tensor, mask: Tensor) -> Carried:
    """Zeroes the value where the mask is exactly 0 (a choice, not a product: 0·NaN would be NaN)."""
    return Carried(torch.where(spread(mask, value) == 0, torch.zeros_like(value), value), mask)


def spread(mask: Tensor, value: Tensor) -> Tensor:
    """Gives an (N, 1, H, W) mask as many axes as the value has, so that the two broadcast."""
    return mask.reshape(mask.shape[0], *[1] * (value.ndim - 3), *mask.shape[-2:])
