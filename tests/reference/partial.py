"""A ResNet of bottlenecks under partial masking, module by module, from the rule in words and not from the exporter.

A convolution is renormalised by the share of its window that it can see::

    c  = (kept positions in the window) / (positions of the window inside the image)
    y  = conv without bias (x · M) / c + bias,    0 where c = 0
    M' = max-pool of M over the same window

Counting only positions inside the image, and not the padding, is what makes a mask of ones exact at the border too.
Everything else is as in layer masking. Source: Liu et al., "Image Inpainting for Irregular Holes Using Partial
Convolutions", ECCV 2018, arXiv 1804.07723, equations 1 and 2, as compared in section 4 of arXiv 2211.14646.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Seen(NamedTuple):
    """An activation (N, C, H, W) that is 0 wherever its mask (N, 1, H, W) is 0."""

    value: Tensor
    mask: Tensor


def see(value: Tensor, mask: Tensor) -> Seen:
    """Zeroes the value where the mask is 0 (a choice, not a product: 0·NaN would be NaN)."""
    return Seen(torch.where(mask > 0, value, 0), mask)


@torch.no_grad()
def partial_resnet(network: Any, image: Tensor, mask: Tensor) -> Tensor:
    """Runs a torchvision ResNet.

    Args:
        network: in evaluation mode, of the image's type.
        image: (N, 3, H, W).
        mask: (N, 1, H, W) of 0 and 1.

    Returns:
        Logits (N, K).
    """
    x = see(image, mask)
    x = activate(normalise(convolve(x, network.conv1), network.bn1))
    x = pool_maximum(x, network.maxpool)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            x = run_bottleneck(x, block)
    return network.fc(pool_globally(x))


def run_bottleneck(x: Seen, block: Any) -> Seen:
    """1×1, 3×3, 1×1 and the shortcut."""
    branch = activate(normalise(convolve(x, block.conv1), block.bn1))
    branch = activate(normalise(convolve(branch, block.conv2), block.bn2))
    branch = normalise(convolve(branch, block.conv3), block.bn3)
    if block.downsample is None:
        return activate(add(branch, x))
    conv, norm = block.downsample
    return activate(add(branch, normalise(convolve(x, conv), norm)))


def convolve(x: Seen, conv: nn.Conv2d) -> Seen:
    """A convolution, renormalised by what its window sees."""
    window = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    ones = torch.ones(1, 1, *conv.kernel_size, dtype=x.value.dtype)
    kept = F.conv2d(x.mask, ones, **window)
    inside = F.conv2d(torch.ones_like(x.mask), ones, **window)
    seen = kept / inside
    bias = 0 if conv.bias is None else conv.bias.view(1, -1, 1, 1)
    sums = F.conv2d(x.value * x.mask, conv.weight, None, **window, groups=conv.groups)
    value = sums / torch.where(kept > 0, seen, 1) + bias
    return see(value, (kept > 0).to(x.mask.dtype))


def normalise(x: Seen, norm: nn.BatchNorm2d) -> Seen:
    """Per channel, then masked: a missing 0 would become a shift."""
    return see(norm(x.value), x.mask)


def activate(x: Seen) -> Seen:
    """The ReLU, which keeps a 0."""
    return see(F.relu(x.value), x.mask)


def pool_maximum(x: Seen, pool: nn.MaxPool2d) -> Seen:
    """The maximum over kept positions only; 0 where the window holds none."""
    candidates = torch.where(x.mask > 0, x.value, -torch.inf)
    return see(pool(candidates), pool(x.mask))


def add(x: Seen, y: Seen) -> Seen:
    """The smaller mask wins."""
    return see(x.value + y.value, torch.minimum(x.mask, y.mask))


def pool_globally(x: Seen) -> Tensor:
    """The mean over kept positions, (N, C); 0 where nothing is kept."""
    return (x.value * x.mask).sum((2, 3)) / x.mask.sum((2, 3)).clamp(min=1)
