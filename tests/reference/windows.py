"""Rules of operators that slide a window over height and width: convolution, pooling, resizing."""

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


def pair(value: int | Sequence[int]) -> list[int]:
    """Reads torch's "one number for both axes" shorthand."""
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


@rule_for(aten.conv2d.default)
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
    kernel, stride, dilation = list(weight.shape[2:]), pair(stride), pair(dilation)
    (rows, columns), inner = pair(padding), x
    pad = [columns, columns, rows, rows]
    if isinstance(x, Padded):
        inner, pad = x.inner, [own + around for own, around in zip(pad, x.pad, strict=True)]
    mask = plane_of(inner)
    filled = F.pad(neighbor_fill(inner.value, mask, rounds_to_reach(kernel, stride, dilation)), pad)
    value = F.conv2d(filled, weight, bias, stride, 0, dilation, groups)
    return carry_map(value, cell_masks(F.pad(mask, pad), kernel, stride, dilation, value.shape[2:]))


def pool_filled(x: Carried, pool: Callable[[Tensor], Tensor], window: Sequence[Sequence[int]]) -> Carried:
    """A pool narrower than its stride: filled as before a convolution of the same window, and nothing is hidden."""
    kernel, stride, (rows, columns), dilation = window
    plane = plane_of(x)
    value = pool(neighbor_fill(x.value, plane, rounds_to_reach(kernel, stride, dilation)))
    padded = F.pad(plane, [columns, columns, rows, rows])
    return carry_map(value, cell_masks(padded, kernel, stride, dilation, value.shape[2:]))


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
    if is_widened(window[0], window[1], window[3]):
        return pool_filled(x, lambda y: F.max_pool2d(y, *window), window[:4])
    candidates = torch.where(x.mask == 0, torch.full_like(x.value, -torch.inf), x.value)
    return carry_map(F.max_pool2d(candidates, *window), F.max_pool2d(plane_of(x), *window))


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
    if is_widened(window[0], window[1], [1, 1]):
        return pool_filled(
            x,
            lambda y: F.avg_pool2d(y, *window, count_include_pad, divisor_override),
            (*window[:3], [1, 1]),
        )
    value = weighted(x, lambda y: F.avg_pool2d(y, *window, count_include_pad, divisor_override))
    return carry_map(value, F.max_pool2d(plane_of(x), *window[:3], ceil_mode=ceil_mode))


def weighted(x: Carried, average: Callable[[Tensor], Tensor]) -> Tensor:
    """r(x·m) · r(1) / r(m) for a linear r over positions; 0 where r(m) is 0."""
    mask = plane_of(x)
    return divide_or_zero(average(x.value * mask), average(mask)) * average(torch.ones_like(mask))


@rule_for(aten.adaptive_avg_pool2d.default)
def mask_adaptive_avg_pool(x: Carried, output_size: Sequence[int]) -> Carried | Tensor:
    """The mean over the kept positions of each cell; a single cell is the global mean, which spends the mask."""
    if list(output_size) == [1, 1]:
        return mask_mean(x, [-2, -1], keepdim=True)
    value = weighted(x, lambda y: F.adaptive_avg_pool2d(y, output_size))
    return carry_map(value, F.adaptive_max_pool2d(plane_of(x), output_size))


@rule_for(aten.upsample_nearest2d.vec)
def mask_nearest(
    x: Carried, output_size: Sequence[int] | None = None, scale_factors: Sequence[float] | None = None
) -> Carried:
    """Every position is copied together with its mask."""
    value, mask = (aten.upsample_nearest2d.vec(part, output_size, scale_factors) for part in (x.value, plane_of(x)))
    return carry_map(value, mask)


@rule_for(aten.upsample_bilinear2d.vec)
def mask_bilinear(
    x: Carried,
    output_size: Sequence[int] | None,
    align_corners: bool,
    scale_factors: Sequence[float] | None = None,
) -> Carried:
    """A weighted mean of up to four positions, so as average pooling: over the kept ones, and kept if any of them is.

    The new mask is the mean of the masks that are not 0: 1 for a binary mask.
    """

    def resize(y: Tensor) -> Tensor:
        return aten.upsample_bilinear2d.vec(y, output_size, align_corners, scale_factors)

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
