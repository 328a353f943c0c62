"""An activation that carries its mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

PRIME = 2**31 - 1
"""Places are numbered modulo this, so that numbers made of numbers stay exact."""


@dataclasses.dataclass(frozen=True)
class Carried:
    """An activation and its mask, in any layout.

    Attributes:
        value: any shape, exactly 0 wherever the mask is 0.
        mask: of the same shape, 1 = kept, 0 = missing. Whatever rearranges the value rearranges it in the same way.
        places: of the same shape, int64: elements of one image with the same number share one mask, whatever that is.
    """

    value: Tensor
    mask: Tensor
    places: Tensor

    def __post_init__(self) -> None:
        """Refuses a mask that has lost its activation: a wrong rule should stop here, not three layers later."""
        if not self.value.shape == self.mask.shape == self.places.shape:
            raise ValueError(f"mask {tuple(self.mask.shape)} does not belong to the value {tuple(self.value.shape)}")

    @property
    def axes(self) -> frozenset[int]:
        """The spatial axes, along which the mask may vary, counted from the front."""
        return varying_axes(self.places)


def carry(value: Tensor, mask: Tensor, places: Tensor) -> Carried:
    """Zeroes the value where the mask, spread to its shape, is exactly 0 (a choice, not a product: 0·NaN is NaN)."""
    mask, places = mask.expand(value.shape), places.expand(value.shape)
    return Carried(torch.where(mask == 0, torch.zeros_like(value), value), mask, places)


def carry_map(value: Tensor, plane: Tensor) -> Carried:
    """Carries a map (N, C, H, W) with the mask (N, 1, H, W) that all its channels share, or one of another rank."""
    places = value.shape[2:]
    return carry(value, plane, torch.arange(places.numel()).view(1, 1, *places))


def settle(value: Tensor, mask: Tensor, places: Tensor) -> Carried | Tensor:
    """Carries a value, or returns it as a plain tensor where no spatial axis is left: then the mask is spent."""
    return carry(value, mask, places) if varying_axes(places) else value


def varying_axes(places: Tensor) -> frozenset[int]:
    """Returns the axes along which a tensor is not constant."""
    return frozenset(axis for axis in range(places.ndim) if bool((places != places.narrow(axis, 0, 1)).any()))


def number_pairs(left: Tensor, right: Tensor) -> Tensor:
    """Numbers the places of what was made from two places; the factors only have to differ."""
    return (3 * left + 5 * right) % PRIME


def plane_of(x: Carried) -> Tensor:
    """Returns the mask (N, 1, H, W) of a map (N, C, H, W); a window slides over nothing else.

    Of signals and volumes it has their axes.
    """
    if x.value.ndim < 3 or not x.axes <= set(range(2, x.value.ndim)):
        raise NotImplementedError(f"a window over {tuple(x.value.shape)} whose mask varies along {sorted(x.axes)}")
    return x.mask[:, :1]


def follow(op: Callable[[Tensor], Tensor], x: Carried) -> Carried | Tensor:
    """Rearranges the value and, in the same way, its mask and its places."""
    return settle(op(x.value), op(x.mask), op(x.places))
