"""Rules of operators that only move values: the mask, which has the value's shape, is moved in the same way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from reference.carried import Carried, carry, follow, number_pairs
from reference.registry import aten, rule_for


def mask_rearrangement(op: Callable[..., Tensor]) -> Callable[..., Carried | Tensor]:
    """Does to the mask what is done to the value."""
    return lambda x, *args, **kwargs: follow(lambda y: op(y, *args, **kwargs), x)


for rearrangement in (
    aten.expand.default,
    aten.permute.default,
    aten.roll.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.transpose.int,
    aten.unsqueeze.default,
):
    rule_for(rearrangement)(mask_rearrangement(rearrangement))


@rule_for(aten.view.default, aten._unsafe_view.default, aten.reshape.default)
def mask_view(x: Carried, shape: Sequence[int]) -> Carried | Tensor:
    """Regroups the axes; flattening a map multiplies by the mask and spends it."""
    if len(shape) == 2 and shape[0] == x.value.shape[0]:
        return (x.value * x.mask).reshape(*shape)
    return follow(lambda y: y.reshape(*shape), x)


@rule_for(aten.split.Tensor, aten.split_with_sizes.default)
def mask_split(x: Carried, size: int | list[int], dim: int = 0) -> list[Carried | Tensor]:
    """Every part with its part of the mask."""
    count = len(torch.split(x.value, size, dim))
    return [follow(lambda y, part=part: torch.split(y, size, dim)[part], x) for part in range(count)]


@rule_for(aten.unbind.int)
def mask_unbind(x: Carried, dim: int = 0) -> list[Carried | Tensor]:
    """Every part with its part of the mask."""
    return [follow(lambda y, index=index: y.select(dim, index), x) for index in range(x.value.shape[dim])]


@rule_for(aten.cat.default)
def mask_cat(parts: Sequence[Carried | Tensor], dim: int = 0) -> Carried:
    """Along a spatial axis the masks follow each other, and what has none is kept; over channels: their union."""
    carried = [part for part in parts if isinstance(part, Carried)]
    dim %= carried[0].value.ndim
    value = torch.cat([part.value if isinstance(part, Carried) else part for part in parts], dim)
    if any(dim in part.axes for part in carried):
        whole = [part if isinstance(part, Carried) else keep_all(part) for part in parts]
        return carry(value, *(torch.cat([getattr(part, name) for part in whole], dim) for name in ("mask", "places")))
    if len(carried) < len(parts):
        raise NotImplementedError("concatenation over channels of a map and something without a mask")
    union = torch.stack([part.mask.narrow(dim, 0, 1) for part in carried]).amax(0)
    return carry(value, union, functools.reduce(number_pairs, [part.places.narrow(dim, 0, 1) for part in carried]))


def keep_all(value: Tensor) -> Carried:
    """Gives a tensor that does not depend on the image (a class token) a mask of ones."""
    return Carried(value, torch.ones_like(value), torch.full_like(value, -1, dtype=torch.int64))


@rule_for(aten.stack.default)
def mask_stack(parts: Sequence[Carried], dim: int = 0) -> Carried:
    """As a concatenation along a new axis."""
    return mask_cat([follow(lambda y: y.unsqueeze(dim), part) for part in parts], dim % (parts[0].value.ndim + 1))


@rule_for(aten.sym_size.int)
def read_size(x: Carried, dim: int) -> Any:
    """Sizes are those of the value."""
    return x.value.shape[dim]


@rule_for(aten.new_zeros.default)
def read_kind(x: Carried, size: Sequence[int], **options: Any) -> Tensor:
    """A constant of the value's type, without a mask."""
    return x.value.new_zeros(size)
