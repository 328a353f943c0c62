"""Infillers: the pixels that stand where a mask hides the image's, in the classifier's normalised input.

The names are the published ones: ``none`` is what :mod:`masktool.baselines` calls ``mean``, 0 in the input; ``mean`` is
``image-mean`` there; ``blur`` is a blur of twice the width of ``blur`` there, on torch's tensors. ``mean`` and ``blur``
are of the whole image, what is hidden included. An exported file shows nothing of that: whatever a masker was trained
with, ``fill`` in its file takes the mean of the data set.

Source: Phang, Park and Geras, 2020, section 3, https://arxiv.org/abs/2010.09750 (none, mean, blur).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from masktool.maskers.settings import Infiller

BLUR_SIGMA = 20 / 224
"""Standard deviation of the blur, as a share of the shorter side: the published 20 pixels at 224."""
REACH = 3
"""Standard deviations at which the Gaussian is cut off: what lies beyond weighs .3 percent."""


def infill(images: Tensor, infiller: Infiller) -> Tensor:
    """Returns the pixels that stand in for hidden ones, for whole images.

    Args:
        images: images (N, C, H, W), normalised.
        infiller: ``none`` for 0, ``mean`` for each image's mean colour, ``blur`` for the image blurred.

    Returns:
        The infiller's pixels, (N, C, H, W) or a shape that broadcasts to it.
    """
    if infiller == "none":
        return images.new_zeros(1)
    if infiller == "mean":
        return images.mean((2, 3), keepdim=True)
    return blur(images, BLUR_SIGMA * min(images.shape[2:]))


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blurs images (N, C, H, W) with a Gaussian whose standard deviation is ``sigma`` pixels; edges are repeated."""
    reach = math.ceil(REACH * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    columns = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(columns, kernel[:, :, :, None], groups=images.shape[1])
