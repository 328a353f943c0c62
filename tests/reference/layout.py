"""Rules of operators that only move values: the mask, which has the value's shape, is moved in the same way."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from reference.carried import Carried, carry, follow, number_pairs
from reference.cells import RULE, shift_maximum
from reference.fill import neighbor_fill
from reference.registry import aten, rule_for


def mask_rearrangement(op: Callable[..., Tensor]) -> Callable[..., Carried | Tensor]:
    """Does to the mask what is done to the value."""
    return lambda x, *args, **kwargs: follow(lambda y: op(y, *args, **kwargs), x)


for rearrangement in (
    aten.expand.default,
    aten.permute.default,
    aten.roll.default,
    aten.select.int,
    aten.squeeze.dim,
    aten.transpose.int,
    aten.unsqueeze.default,
):
    rule_for(rearrangement)(mask_rearrangement(rearrangement))


@dataclasses.dataclass(frozen=True)
class Sampled(Carried):
    """Every so-many-th place of a map, along one axis or, slice by slice, along several: one sampler of the map.

    Attributes:
        source: the map.
        steps: start, end and step by axis.
    """

    source: Carried
    steps: dict[int, tuple[int, int, int]]


@rule_for(aten.slice.Tensor)
def mask_slice(
    x: Carried, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Carried | Tensor:
    """The mask is sliced likewise; under the cell rule a step over places keeps what its cells hold, once filled."""
    dim %= x.value.ndim
    if RULE.get() != "cell" or step == 1 or dim not in x.axes:
        return follow(lambda y: aten.slice.Tensor(y, dim, start, end, step), x)
    cut = (start or 0, sys.maxsize if end is None else end, step)
    if isinstance(x, Sampled) and dim not in x.steps:
        return sample_cells(x.source, {**x.steps, dim: cut})
    return sample_cells(x, {dim: cut})


def sample_cells(source: Carried, steps: dict[int, tuple[int, int, int]]) -> Sampled:
    """Fills one round less than the longest step, slices the value, and takes the mask of each cell."""
    axes = sorted(source.axes)
    if len(axes) > 3:
        raise NotImplementedError(f"steps over a map whose mask varies along {axes}")
    last = range(-len(axes), 0)
    planes = [part.movedim(axes, tuple(last)) for part in (source.value, source.mask)]
    shape = (-1, 1, *planes[0].shape[-len(axes) :]) if len(axes) > 1 else (-1, 1, 1, planes[0].shape[-1])
    flat = neighbor_fill(*(plane.reshape(shape) for plane in planes), max(step for *_, step in steps.values()) - 1)
    value, mask, places = flat.reshape(planes[0].shape).movedim(tuple(last), axes), source.mask, source.places
    for dim, cut in steps.items():
        picked = range(source.value.shape[dim])[slice(*cut)]
        value, places = (part.index_select(dim, torch.tensor(picked)) for part in (value, places))
        cells = shift_maximum(mask, dim, range(cut[2]), cut[2], -(-mask.shape[dim] // cut[2]))
        mask = cells.index_select(dim, torch.tensor([place // cut[2] for place in picked]))
    kept = carry(value, mask, places)
    return Sampled(kept.value, kept.mask, kept.places, source, steps)


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
