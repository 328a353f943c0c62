"""Rules of operators that look at one position at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reference.carried import Carried, carry, number_pairs
from reference.registry import aten, rule_for


@rule_for(aten._native_batch_norm_legit_no_training.default)
def mask_batch_norm(x: Carried, *parameters: Any) -> tuple[Carried]:
    """Per channel, then masked: a missing 0 would become a shift."""
    value = aten._native_batch_norm_legit_no_training.default(x.value, *parameters)[0]
    return (carry(value, x.mask, x.places),)


def mask_activation(op: Callable[..., Tensor]) -> Callable[..., Carried]:
    """f(x), then masked, since f(0) may not be 0."""
    return lambda x, *args, **kwargs: carry(op(x.value, *args, **kwargs), x.mask, x.places)


for activation in (
    aten.relu.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,  # relu6 too
    aten.clamp.default,
    aten.silu.default,
    aten.gelu.default,
    aten.tanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.neg.default,
    aten.alias.default,
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


@rule_for(aten.div.Tensor)
def mask_div(x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """The smaller mask wins."""
    return join(torch.div, x, y)


@rule_for(aten.addcmul.default)
def mask_addcmul(x: Carried | Tensor, y: Carried | Tensor, z: Carried | Tensor, value: float = 1.0) -> Carried:
    """The smallest mask wins."""
    product = join(torch.mul, y, z) if isinstance(y, Carried) or isinstance(z, Carried) else torch.mul(y, z)
    return join(lambda left, right: left + value * right, x, product)


def join(op: Callable[..., Tensor], x: Carried | Tensor | float, y: Carried | Tensor | float) -> Carried:
    """Applies an operator of two arguments under the smaller of their masks."""
    value = op(*(side.value if isinstance(side, Carried) else side for side in (x, y)))
    sides = [side for side in (x, y) if isinstance(side, Carried)]
    mask = torch.stack([side.mask.expand(value.shape) for side in sides]).amin(0)
    return carry(value, mask, functools.reduce(number_pairs, [side.places for side in sides]))
