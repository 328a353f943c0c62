"""Rules of products and softmax over an axis: a missing token gets no weight and gives none.

A score between a query and a key is kept when both are; softmax gives the others no weight; the mean of the values
under these weights is kept where the query is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.carried import Carried, carry, number_pairs, settle
from reference.elementwise import join
from reference.layout import mask_rearrangement
from reference.reductions import divide_or_zero
from reference.registry import aten, rule_for


@rule_for(aten.linear.default)
def mask_linear(x: Carried, weight: Tensor, bias: Tensor | None = None) -> Carried | Tensor:
    """Over channels: place by place. Over positions: value·mask, which spends the mask along them."""
    value = F.linear(x.value * x.mask if x.value.ndim - 1 in x.axes else x.value, weight, bias)
    mask, places = (part.amax(-1, keepdim=True).expand(value.shape) for part in (x.mask, x.places))
    return settle(value, mask, places)


@rule_for(aten.einsum.default)
def mask_einsum(equation: str, operands: list[Carried | Tensor], path: object = None) -> Carried | Tensor:
    """A product of two tensors; an element is kept when a part of both of what it was made of is."""
    inputs, output = equation.replace(" ", "").split("->")
    value = torch.einsum(equation, [part.value if isinstance(part, Carried) else part for part in operands])
    carried = [
        (part, labels) for part, labels in zip(operands, inputs.split(","), strict=True) if isinstance(part, Carried)
    ]
    if len(operands) != 2 or len(carried) != 2:
        raise NotImplementedError(f"{equation} of {len(operands)} tensors, {len(carried)} of which carry a mask")
    masks, places = (
        [lay_out(getattr(part, name), labels, output).expand(value.shape) for part, labels in carried]
        for name in ("mask", "places")
    )
    return settle(value, torch.minimum(*masks), number_pairs(*places))


def lay_out(tensor: Tensor, labels: str, output: str) -> Tensor:
    """Lays out a mask along the axes of a product: its maximum over summed axes, length 1 along those it lacks."""
    summed = [axis for axis, label in enumerate(labels) if label not in output]
    tensor = tensor.amax(summed) if summed else tensor
    left = [label for label in labels if label in output]
    tensor = tensor.permute([left.index(label) for label in output if label in left])
    return tensor[tuple(slice(None) if label in left else None for label in output)]


@rule_for(aten.matmul.default)
def mask_matmul(x: Carried, y: Carried) -> Carried | Tensor:
    """The same, as a matrix product: batch axes, rows, columns."""
    batch = "".join(chr(ord("a") + axis) for axis in range(x.value.ndim - 2))
    return mask_einsum(f"{batch}xy,{batch}yz->{batch}xz", [x, y])


@rule_for(aten.softmax.int)
def mask_softmax(x: Carried, dim: int, dtype: torch.dtype | None = None) -> Carried:
    """e^x·m / Σ e^x·m, 0 where nothing is kept; over channels, which share one mask, the softmax itself."""
    peak = torch.where(x.mask == 0, torch.full_like(x.value, -torch.inf), x.value).amax(dim, keepdim=True)
    peak = torch.where(peak.isinf(), torch.zeros_like(peak), peak)
    weights = (x.value - peak).exp() * (x.mask != 0)
    return carry(divide_or_zero(weights, weights.sum(dim, keepdim=True)), x.mask, x.places)


@rule_for(aten.scaled_dot_product_attention.default)
def mask_attention(
    query: Carried,
    key: Carried,
    value: Carried,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Carried | Tensor:
    """softmax(q·kᵀ·scale + bias)·v, step by step."""
    if is_causal or enable_gqa:
        raise NotImplementedError("causal or grouped attention")
    scores = mask_matmul(query, mask_rearrangement(torch.transpose)(key, -2, -1))
    scores = join(torch.mul, scores, 1 / math.sqrt(query.value.shape[-1]) if scale is None else scale)
    scores = scores if bias is None else join(torch.add, scores, bias)
    return mask_matmul(mask_softmax(scores, -1), value)
