"""The cell rule: a sampler narrower than its stride keeps an output where any place of its stride's cell is kept.

Which rule holds is a setting of the whole run, not of one operator: :func:`sampling`. Written from the rule in words,
without a look at the exporter: windows are lists of offsets, and a maximum is taken over that many shifted copies.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

RULE: contextvars.ContextVar[str] = contextvars.ContextVar("RULE", default="published")


@contextlib.contextmanager
def sampling(rule: str) -> Iterator[None]:
    """Runs what is inside under a rule: ``cell`` or ``published``."""
    token = RULE.set(rule)
    try:
        yield
    finally:
        RULE.reset(token)


def deciding_offsets(size: int, stride: int, dilation: int) -> list[int]:
    """Lists which places of one axis, counted from where a window begins, keep its output."""
    looked_at = [dilation * tap for tap in range(size)]
    if RULE.get() == "cell" and looked_at[-1] + 1 < stride:
        return list(range(stride))
    return looked_at


def is_widened(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> bool:
    """Whether the rule in force decides by more places than a window looks at, along some axis."""
    return any(len(deciding_offsets(*axis)) > axis[0] for axis in zip(kernel, stride, dilation, strict=True))


def shift_maximum(mask: Tensor, dim: int, offsets: Sequence[int], stride: int, count: int) -> Tensor:
    """The largest of some places of each of ``count`` windows along one axis; beyond the end nothing is kept."""
    beyond = max(0, (count - 1) * stride + max(offsets) + 1 - mask.shape[dim])
    around = [0, 0] * (mask.ndim - 1 - dim) + [0, beyond]
    padded, begins = F.pad(mask, around), torch.arange(count) * stride
    return torch.stack([padded.index_select(dim, begins + offset) for offset in offsets]).amax(0)


def cell_masks(
    mask: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], counts: Sequence[int]
) -> Tensor:
    """The mask behind windows over the last two axes of a map that is padded already, axis by axis."""
    for dim, (*window, count) in enumerate(zip(kernel, stride, dilation, counts, strict=True), start=2):
        mask = shift_maximum(mask, dim, deciding_offsets(*window), window[1], count)
    return mask


def rounds_to_reach(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> int:
    """How far the farthest kept place that decides may be from the farthest place that is looked at."""
    return max(max(deciding_offsets(*axis)) for axis in zip(kernel, stride, dilation, strict=True))
