"""Random weights with which a test can fail: every layer passes on a signal of unit size, every parameter matters.

Default initialisation does not do: in several architectures the logits come out near 1e-14, and gains or biases start
at 0; then neither a forgotten fill nor a forgotten mask would change a digit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STATISTICS_BATCH = 8
"""Images behind the batch-norm statistics; with 4, the deepest feature maps of a small input have too few positions."""
GAIN = (0.6, 1.4)
"""Range of the gains: away from 0, so that no channel dies."""
SHIFT = 1.0
"""Mean of biases and shifts. Above 0 it keeps most ReLUs open: at 0 a random ResNet-50 amplifies float32 rounding to
5e-5 of the logits, at 1 to 1e-6, and a comparison at 1e-5 means something. It is also what leaks where a mask is
forgotten."""
SHIFT_SCALE = 0.2
"""Standard deviation of biases and shifts."""
SQUARED_RELU_GAIN = 2.0
"""A ReLU halves the second moment, so weights have variance 2 / fan-in (He et al. 2015, arXiv 1502.01852)."""
BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator, input_size: tuple[int, int]) -> nn.Module:
    """Randomises every parameter and takes batch-norm statistics from a batch of :func:`cloudy_images`.

    Args:
        module: changed in place, left in evaluation mode.
        generator: where all random choices come from.
        input_size: (height, width) in pixels.

    Returns:
        The module itself.
    """
    module.eval()
    for name, parameter in module.named_parameters():
        randomize(name.rpartition(".")[2], parameter, generator)
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0  # the statistics of this one batch
        norm.train()
    module(cloudy_images(STATISTICS_BATCH, input_size, generator))
    return module.eval()


def randomize(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Draws one parameter: a weight by its fan-in, a bias around SHIFT, gains and layer scales around 1."""
    if name.endswith("weight") and parameter.ndim > 1:
        parameter.normal_(0, (SQUARED_RELU_GAIN / parameter[0].numel()) ** 0.5, generator=generator)
    elif name.endswith("bias"):
        parameter.normal_(SHIFT, SHIFT_SCALE, generator=generator)
    else:
        parameter.uniform_(*GAIN, generator=generator)


def cloudy_images(count: int, size: tuple[int, int], generator: torch.Generator, channels: int = 3) -> Tensor:
    """Draws images with structure at several scales, so that no half of one looks like the other.

    Returns:
        (count, channels, height, width) float32, about zero mean and unit variance.
    """
    image = torch.zeros(count, channels, *size)
    for grid in (2, 5, 16, 64):
        noise = torch.randn(count, channels, grid, grid, generator=generator)
        image += F.interpolate(noise, size, mode="bilinear", align_corners=True)
    return image / image.std()
