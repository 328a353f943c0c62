"""Rules of operators that slide a window over places: convolution, pooling, resizing, of one axis, two or three."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.carried import Carried, carry, carry_map, plane_of
from reference.cells import cell_masks, is_widened, rounds_to_reach
from reference.fill import neighbor_fill
from reference.reductions import divide_or_zero, mask_mean
from reference.registry import aten, rule_for


@dataclasses.dataclass(frozen=True)
class Padded:
    """A map with zeros around it that only a convolution may take: as its padding they are not filled from.

    Attributes:
        inner: the map before.
        pad: left, right, top, bottom, as torch lists them.
    """

    inner: Carried
    pad: tuple[int, ...]


CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ADAPTIVE_MAX_POOLS = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_AVG_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
"""Torch's functions by the number of axes of places."""


def each(value: int | Sequence[int], axes: int) -> list[int]:
    """Reads torch's "one number for all axes" shorthand."""
    return [value] * axes if isinstance(value, int) else list(value) * (axes // len(value))


def around(padding: Sequence[int]) -> list[int]:
    """Lists padding as ``F.pad`` takes it: the last axis first, its begin and its end."""
    return [amount for own in reversed(padding) for amount in (own, own)]


@rule_for(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def mask_conv(
    x: Carried | Padded,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Carried:
    """Fill as far as the window reaches, convolve; the new mask is the mask's maximum over the same window."""
    kernel = list(weight.shape[2:])
    stride, dilation, pad = each(stride, len(kernel)), each(dilation, len(kernel)), around(each(padding, len(kernel)))
    inner = x
    if isinstance(x, Padded):
        inner, pad = x.inner, [own + other for own, other in zip(pad, x.pad, strict=True)]
    mask = plane_of(inner)
    filled = F.pad(neighbor_fill(inner.value, mask, rounds_to_reach(kernel, stride, dilation)), pad)
    value = CONVOLUTIONS[len(kernel)](filled, weight, bias, stride, 0, dilation, groups)
    return carry_map(value, cell_masks(F.pad(mask, pad), kernel, stride, dilation, value.shape[2:]))


def pool_filled(x: Carried, pool: Callable[[Tensor], Tensor], window: Sequence[Sequence[int]]) -> Carried:
    """A pool narrower than its stride: filled as before a convolution of the same window, and nothing is hidden."""
    kernel, stride, padding, dilation = window
    plane = plane_of(x)
    value = pool(neighbor_fill(x.value, plane, rounds_to_reach(kernel, stride, dilation)))
    padded = F.pad(plane, around(padding))
    return carry_map(value, cell_masks(padded, kernel, stride, dilation, value.shape[2:]))


@rule_for(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
def mask_max_pool(
    x: Carried,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Carried:
    """The maximum over kept positions only; 0 where the window holds none."""
    axes = x.value.ndim - 2
    pool = MAX_POOLS[axes]
    window = (*(each(own, axes) for own in (kernel, stride or kernel, padding, dilation)), ceil_mode)
    if is_widened(window[0], window[1], window[3]):
        return pool_filled(x, lambda y: pool(y, *window), window[:4])
    candidates = torch.where(x.mask == 0, torch.full_like(x.value, -torch.inf), x.value)
    return carry_map(pool(candidates, *window), pool(plane_of(x), *window))


@rule_for(aten.avg_pool2d.default, aten.avg_pool3d.default)
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
    axes = x.value.ndim - 2
    rest = () if divisor_override is None else (divisor_override,)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[axes]
    window = (*(each(own, axes) for own in (kernel, stride or kernel, padding)), ceil_mode, count_include_pad)

    def average(y: Tensor) -> Tensor:
        return pool(y, *window, *rest)

    if is_widened(window[0], window[1], [1] * axes):
        return pool_filled(x, average, (*window[:3], [1] * axes))
    largest = MAX_POOLS[axes](plane_of(x), *window[:3], ceil_mode=ceil_mode)
    return carry_map(weighted(x, average), largest)


@rule_for(aten.avg_pool1d.default)
def mask_avg_pool_of_a_line(
    x: Carried,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Carried:
    """As of maps; torch's operator has no divisor."""
    return mask_avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad)


def weighted(x: Carried, average: Callable[[Tensor], Tensor]) -> Tensor:
    """r(x·m) · r(1) / r(m) for a linear r over positions; 0 where r(m) is 0."""
    mask = plane_of(x)
    return divide_or_zero(average(x.value * mask), average(mask)) * average(torch.ones_like(mask))


@rule_for(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default)
def mask_adaptive_avg_pool(x: Carried, output_size: Sequence[int]) -> Carried | Tensor:
    """The mean over the kept positions of each cell; a single cell is the global mean, which spends the mask."""
    axes = x.value.ndim - 2
    if list(output_size) == [1] * axes:
        return mask_mean(x, list(range(-axes, 0)), keepdim=True)
    value = weighted(x, lambda y: ADAPTIVE_AVG_POOLS[axes](y, output_size))
    return carry_map(value, ADAPTIVE_MAX_POOLS[axes](plane_of(x), output_size))


@rule_for(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec)
def mask_nearest(
    x: Carried, output_size: Sequence[int] | None = None, scale_factors: Sequence[float] | None = None
) -> Carried:
    """Every position is copied together with its mask."""
    enlarge = {3: aten.upsample_nearest1d, 4: aten.upsample_nearest2d, 5: aten.upsample_nearest3d}[x.value.ndim].vec
    value, mask = (enlarge(part, output_size, scale_factors) for part in (x.value, plane_of(x)))
    return carry_map(value, mask)


@rule_for(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)
def mask_bilinear(
    x: Carried,
    output_size: Sequence[int] | None,
    align_corners: bool,
    scale_factors: Sequence[float] | None = None,
) -> Carried:
    """A weighted mean of up to four positions, so as average pooling: over the kept ones, and kept if any of them is.

    The new mask is the mean of the masks that are not 0: 1 for a binary mask.
    """

    enlarge = {3: aten.upsample_linear1d, 4: aten.upsample_bilinear2d, 5: aten.upsample_trilinear3d}[x.value.ndim].vec

    def resize(y: Tensor) -> Tensor:
        return enlarge(y, output_size, align_corners, scale_factors)

    mask = plane_of(x)
    return carry_map(weighted(x, resize), divide_or_zero(resize(mask), resize((mask != 0).to(mask.dtype))))


@rule_for(aten.constant_pad_nd.default)
def mask_constant_pad(x: Carried, pad: Sequence[int], value: float = 0.0) -> Carried | Padded:
    """Along an axis that is not spatial the mask is spread; zeros around a map wait for the convolution behind."""
    padded = {x.value.ndim - 1 - index // 2 for index, count in enumerate(pad) if count}
    if not padded & x.axes:
        mask, places = x.mask, x.places
        for axis in padded:
            mask, places = mask.narrow(axis, 0, 1), places.narrow(axis, 0, 1)
        return carry(F.pad(x.value, list(pad), value=value), mask, places)
    if value or not padded <= {2, 3} or x.value.ndim != 4:
        raise NotImplementedError(f"padding {list(pad)} of {tuple(x.value.shape)} with {value}")
    return Padded(x, (*pad, 0, 0)[:4])


@rule_for(aten.pad.default)
def mask_pad(
    x: Carried, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Carried | Padded | Tensor:
    """Zeros as above; a reflected or repeated position brings its mask along."""
    if mode == "constant":
        return mask_constant_pad(x, pad, value or 0.0)
    return carry_map(F.pad(x.value, list(pad), mode=mode), F.pad(plane_of(x), list(pad), mode=mode))
