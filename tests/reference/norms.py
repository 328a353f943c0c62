"""Rules of normalisations whose statistics come from the activation itself.

Statistics are those of the kept positions, weighted by the mask. Over channels, which share one mask, the weights
cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reference.carried import Carried, carry
from reference.reductions import divide_or_zero
from reference.registry import aten, rule_for


def standardize(value: Tensor, mask: Tensor, dim: list[int], epsilon: float) -> Tensor:
    """(x − mean) / √(variance + ε) with both over the kept positions of the given axes."""
    total = mask.sum(dim, keepdim=True)
    centered = value - divide_or_zero((value * mask).sum(dim, keepdim=True), total)
    variance = divide_or_zero((centered.square() * mask).sum(dim, keepdim=True), total)
    return centered / (variance + epsilon).sqrt()


def gain_and_shift(value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """value · weight + bias, either of which may be absent."""
    value = value if weight is None else value * weight
    return value if bias is None else value + bias


@rule_for(aten.layer_norm.default)
def mask_layer_norm(
    x: Carried,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
    cudnn_enable: bool = True,
) -> Carried:
    """Over the last axes, whether they hold channels, positions or both."""
    dim = list(range(-len(normalized_shape), 0))
    return carry(gain_and_shift(standardize(x.value, x.mask, dim, epsilon), weight, bias), x.mask, x.places)


@rule_for(aten.group_norm.default)
def mask_group_norm(
    x: Carried,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Carried:
    """Over the channels of a group and all their positions."""
    batch, channels, *spatial = x.value.shape
    value, mask = (part.reshape(batch, groups, -1) for part in (x.value, x.mask))
    normal = standardize(value, mask, [-1], epsilon).reshape(x.value.shape)
    weight, bias = (part if part is None else part.view(channels, *[1] * len(spatial)) for part in (weight, bias))
    return carry(gain_and_shift(normal, weight, bias), x.mask, x.places)


@rule_for(aten.instance_norm.default)
def mask_instance_norm(
    x: Carried,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    epsilon: float,
    cudnn_enabled: bool,
) -> Carried:
    """A group norm with one channel a group."""
    if not use_input_stats:
        raise NotImplementedError("instance normalisation with stored statistics")
    return mask_group_norm(x, x.value.shape[1], weight, bias, epsilon)
