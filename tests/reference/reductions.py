"""Rules of sums, means, norms and maxima over whole axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reference.carried import Carried, settle
from reference.registry import aten, rule_for

Reduction = Callable[[Tensor], Tensor]


def reduce_kept(x: Carried, reduction: Reduction, dim: Sequence[int], keepdim: bool) -> Carried | Tensor:
    """r(x·m) · r(1) / r(m): what r would give if the missing were like the kept; 0 where nothing is kept.

    Over channels, which share one mask, this is r itself; a reduction over every spatial axis spends the mask.
    """
    scale = reduction(torch.ones_like(x.mask))
    return largest(x, divide_or_zero(reduction(x.value * x.mask) * scale, reduction(x.mask)), dim, keepdim)


def largest(x: Carried, value: Tensor, dim: Sequence[int], keepdim: bool) -> Carried | Tensor:
    """Carries a reduced value under the largest of the masks that went into it."""
    return settle(value, x.mask.amax(dim, keepdim), x.places.amax(dim, keepdim))


def divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, torch.zeros_like(numerator), numerator / torch.where(empty, 1, denominator))


@rule_for(aten.mean.dim)
def mask_mean(x: Carried, dim: Sequence[int], keepdim: bool = False) -> Carried | Tensor:
    """The mean over kept positions, weighted by the mask."""
    return reduce_kept(x, lambda y: y.mean(dim, keepdim), dim, keepdim)


@rule_for(aten.sum.dim_IntList)
def mask_sum(x: Carried, dim: Sequence[int], keepdim: bool = False) -> Carried | Tensor:
    """The sum over kept positions, scaled to the number of all."""
    return reduce_kept(x, lambda y: y.sum(dim, keepdim), dim, keepdim)


@rule_for(aten.linalg_vector_norm.default)
def mask_norm(
    x: Carried, order: float = 2.0, dim: Sequence[int] | None = None, keepdim: bool = False
) -> Carried | Tensor:
    """The norm over kept positions, scaled to the number of all."""
    axes = list(range(x.value.ndim)) if dim is None else list(dim)
    return reduce_kept(x, lambda y: torch.linalg.vector_norm(y, order, axes, keepdim), axes, keepdim)


@rule_for(aten.amax.default)
def mask_amax(x: Carried, dim: Sequence[int] = (), keepdim: bool = False) -> Carried | Tensor:
    """The maximum over kept positions only; 0 where nothing is kept."""
    axes = list(dim) or list(range(x.value.ndim))
    candidates = torch.where(x.mask == 0, torch.full_like(x.value, -torch.inf), x.value)
    empty = x.mask.amax(axes, keepdim) == 0
    return largest(x, candidates.amax(axes, keepdim).masked_fill(empty, 0.0), axes, keepdim)


@rule_for(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def mask_adaptive_max_pool(x: Carried, output_size: Sequence[int]) -> tuple[Carried | Tensor]:
    """One cell only: the maximum over space."""
    if set(output_size) != {1}:
        raise NotImplementedError(f"adaptive maximum over {list(output_size)} cells")
    return (mask_amax(x, list(range(-len(output_size), 0)), keepdim=True),)
