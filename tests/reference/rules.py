"""One mask rule per ATen operator, and the table that finds it.

Every rule takes what its operator takes, with the activation as :class:`Carried`, and returns a :class:`Carried`, or a
plain tensor once the mask is spent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.carried import Carried, carry, spread
from reference.fill import neighbor_fill

RULES: dict[Any, Callable[..., Any]] = {operator.getitem: operator.getitem}
aten = torch.ops.aten


def rule_for(*operators: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as the rule of these operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def pair(value: int | Sequence[int]) -> list[int]:
    """Reads torch's "one number for both axes" shorthand."""
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


# ---- windows ----


@rule_for(aten.conv2d.default)
def mask_conv(
    x: Carried,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Carried:
    """Fill as far as the window reaches, convolve; the new mask is the mask's maximum over the same window."""
    kernel, stride, padding, dilation = list(weight.shape[2:]), pair(stride), pair(padding), pair(dilation)
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    filled = neighbor_fill(x.value, x.mask, max(reach))
    value = F.conv2d(filled, weight, bias, stride, padding, dilation, groups)
    padded = F.pad(
        x.mask, (padding[1], padding[1], padding[0], padding[0])
    )  # max_pool2d allows no padding beyond k / 2
    return carry(value, F.max_pool2d(padded, kernel, stride, 0, dilation))


@rule_for(aten.max_pool2d.default)
def mask_max_pool(
    x: Carried,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Carried:
    """The maximum over kept positions only; 0 where the window holds none."""
    window = (pair(kernel), pair(stride or kernel), pair(padding), pair(dilation), ceil_mode)
    candidates = torch.where(x.mask == 0, torch.full_like(x.value, -torch.inf), x.value)
    return carry(F.max_pool2d(candidates, *window), F.max_pool2d(x.mask, *window))


@rule_for(aten.avg_pool2d.default)
def mask_avg_pool(
    x: Carried,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Carried:
    """pool(x·m) · pool(1) / pool(m), so that the original's padding and count rule cancel out of the weights."""
    window = (pair(kernel), pair(stride or kernel), pair(padding), ceil_mode)

    def pool(y: Tensor) -> Tensor:
        return F.avg_pool2d(y, *window, count_include_pad, divisor_override)

    value = divide_or_zero(pool(x.value * x.mask), pool(x.mask)) * pool(torch.ones_like(x.mask))
    return carry(value, F.max_pool2d(x.mask, *window[:3], ceil_mode=ceil_mode))


@rule_for(aten.adaptive_avg_pool2d.default)
def mask_adaptive_avg_pool(x: Carried, output_size: Sequence[int]) -> Carried | Tensor:
    """The mean over the kept positions of each cell; a single cell is the global mean, which spends the mask."""
    if list(output_size) == [1, 1]:
        return mask_mean(x, [-2, -1], keepdim=True)
    value = divide_or_zero(
        F.adaptive_avg_pool2d(x.value * x.mask, output_size), F.adaptive_avg_pool2d(x.mask, output_size)
    )
    return carry(value, F.adaptive_max_pool2d(x.mask, output_size))


@rule_for(aten.mean.dim)
def mask_mean(x: Carried, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    """The mean over kept positions, weighted by the mask; 0 where nothing is kept."""
    if sorted(axis % x.value.ndim for axis in dim) != [x.value.ndim - 2, x.value.ndim - 1]:
        raise NotImplementedError(f"mean over axes {list(dim)} of {tuple(x.value.shape)}: only over height and width")
    weights = spread(x.mask, x.value)
    return divide_or_zero((x.value * weights).sum(dim, keepdim), weights.sum(dim, keepdim))


def divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, torch.zeros_like(numerator), numerator / torch.where(empty, 1, denominator))


# ---- one position at a time ----


@rule_for(aten._native_batch_norm_legit_no_training.default)
def mask_batch_norm(x: Carried, *parameters: Any) -> tuple[Carried]:
    """Per channel, then masked: a missing 0 would become a shift."""
    return (carry(aten._native_batch_norm_legit_no_training.default(x.value, *parameters)[0], x.mask),)


def mask_activation(op: Callable[..., Tensor]) -> Callable[..., Carried]:
    """f(x), then masked, since f(0) may not be 0."""
    return lambda x, *args, **kwargs: carry(op(x.value, *args, **kwargs), x.mask)


for activation in (
    aten.relu.default,
    aten.hardtanh.default,  # relu6 too
    aten.clamp.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.neg.default,
    aten.clone.default,  # dropout in evaluation, and `contiguous`
):
    rule_for(activation)(mask_activation(activation))


@rule_for(aten.add.Tensor)
def mask_add(x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """The smaller mask wins."""
    return join(torch.add, x, y)


@rule_for(aten.sub.Tensor)
def mask_sub(x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """The smaller mask wins."""
    return join(torch.sub, x, y)


@rule_for(aten.mul.Tensor)
def mask_mul(x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """The smaller mask wins; a gate (N, C, 1, 1) has none and leaves the other's as it is."""
    return join(torch.mul, x, y)


def join(op: Callable[..., Tensor], x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """Applies an operator of two arguments under the smaller of their masks."""
    masks = [side.mask for side in (x, y) if isinstance(side, Carried)]
    values = [side.value if isinstance(side, Carried) else side for side in (x, y)]
    return carry(op(*values), masks[0] if len(masks) == 1 else torch.minimum(*masks))


# ---- axes ----


@rule_for(aten.cat.default)
def mask_cat(parts: Sequence[Carried], dim: int = 0) -> Carried:
    """Over channels only: the union of the masks."""
    if dim % parts[0].value.ndim != 1:
        raise NotImplementedError(f"concatenation over axis {dim}")
    union = torch.stack([part.mask for part in parts]).amax(0)
    return carry(torch.cat([part.value for part in parts], dim), union)


@rule_for(aten.split.Tensor)
def mask_split(x: Carried, size: int, dim: int = 0) -> list[Carried]:
    """Over channels only: each part keeps the whole mask."""
    if dim % x.value.ndim != 1:
        raise NotImplementedError(f"split over axis {dim}")
    return [carry(part, x.mask) for part in torch.split(x.value, size, dim)]


@rule_for(aten.slice.Tensor)
def mask_slice(x: Carried, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Carried:
    """Along the batch, height or width the mask is cut in the same way."""
    cut = (start, end, step)
    value, from_the_end = aten.slice.Tensor(x.value, dim, *cut), dim % x.value.ndim - x.value.ndim
    if from_the_end >= -2:
        return carry(value, aten.slice.Tensor(x.mask, from_the_end, *cut))
    return carry(value, aten.slice.Tensor(x.mask, 0, *cut) if dim == 0 else x.mask)


@rule_for(aten.constant_pad_nd.default)
def mask_constant_pad(x: Carried, pad: Sequence[int], value: float = 0.0) -> Carried:
    """Over channels only (torch lists the last axis first)."""
    if any(pad[:4]):
        raise NotImplementedError(f"padding {list(pad)} of height or width outside a window")
    return carry(F.pad(x.value, list(pad), value=value), x.mask)


@rule_for(aten.pad.default)
def mask_pad(x: Carried, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Carried:
    """The same, as newer graphs write it."""
    if mode != "constant":
        raise NotImplementedError(f"padding mode {mode}")
    return mask_constant_pad(x, pad, value or 0.0)


@rule_for(aten.transpose.int)
def mask_transpose(x: Carried, dim0: int, dim1: int) -> Carried:
    """Among the axes before height and width the mask does not change."""
    if not {dim0 % x.value.ndim, dim1 % x.value.ndim} <= set(range(1, x.value.ndim - 2)):
        raise NotImplementedError(f"transposition of axes {dim0} and {dim1} of {tuple(x.value.shape)}")
    return carry(x.value.transpose(dim0, dim1), x.mask)


@rule_for(aten.view.default, aten._unsafe_view.default)
def mask_view(x: Carried, shape: Sequence[int]) -> Carried | Tensor:
    """Regrouped channels keep the mask; flattening multiplies by it and spends it."""
    if len(shape) == 2 and shape[0] == x.value.shape[0]:
        return (x.value * spread(x.mask, x.value)).reshape(*shape)
    if list(shape[-2:]) != list(x.value.shape[-2:]) or shape[0] != x.value.shape[0]:
        raise NotImplementedError(f"view of {tuple(x.value.shape)} as {list(shape)}")
    return carry(x.value.reshape(*shape), x.mask)


@rule_for(aten.sym_size.int)
def read_size(x: Carried, dim: int) -> int:
    """Sizes are those of the value."""
    return x.value.shape[dim]
