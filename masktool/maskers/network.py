"""The masker: a few layers on top of a classifier's activations that say which pixels are salient.

    each stage's activations -> 1x1 convolution to 64, batch normalisation, ReLU -> bilinear to the finest stage
    all of them side by side -> 3x3 convolution to 1 channel -> sigmoid -> nearest to the input's size

Source: Phang, Park and Geras, "Investigating and Simplifying Masking-based Saliency Methods for Model
Interpretability", 2020, section 3, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from masktool.contract import SALIENCY_MAP
from masktool.exporters.torch_sources.module_export import flatten_outputs
from masktool.maskers.stages import Stage, reading

WIDTH = 64
"""Number of channels to which every stage is brought."""
KERNEL = 3
TAPS = KERNEL * KERNEL


class MaskerNetwork(nn.Module):
    """Turns a classifier's activations into a saliency map.

    Args:
        stages: stages of the classifier whose activations are read, the finest first.
        size: (height, width) of the input in pixels, and so of the map.
    """

    def __init__(self, stages: Sequence[Stage], size: tuple[int, int]) -> None:
        super().__init__()
        self.finest, self.size = stages[0].size, size
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each.channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
            for each in stages
        )
        self.combine = nn.Conv2d(WIDTH * len(stages), 1, 3, padding=1)

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        """Maps the stages' activations (N, C, h, w), in their order, to (N, 1, H, W) in [0, 1], 1 = salient.

        The 3x3 convolution runs in two parts: a 1x1 convolution to its nine taps, which gives the same before the
        enlargement as after it, and the sum of the taps, each shifted to its place. ONNX Runtime computes channels in
        blocks, so that one channel out of 128 takes as long as sixteen; nine of them are free, and need no enlarged
        64. On small networks this halves what the map costs.
        """
        weights = self.combine.weight[0].flatten(1).T[..., None, None]  # (9, 64 for each stage, 1, 1)
        taps = [
            self.enlarge(F.conv2d(reduce(each), weights[:, index * WIDTH : (index + 1) * WIDTH]))
            for index, (reduce, each) in enumerate(zip(self.reduce, activations, strict=True))
        ]
        total = functools.reduce(torch.add, taps)
        shifts = torch.eye(TAPS, dtype=total.dtype, device=total.device).view(1, TAPS, KERNEL, KERNEL)
        logits = F.conv2d(total, shifts, self.combine.bias, padding=KERNEL // 2)
        return F.interpolate(torch.sigmoid(logits.float()), self.size, mode="nearest")

    def enlarge(self, taps: Tensor) -> Tensor:
        """Returns taps (N, 9, h, w) enlarged to the finest stage's resolution."""
        if taps.shape[2:] == self.finest:
            return taps
        return F.interpolate(taps, self.finest, mode="bilinear", align_corners=False)


class ExplainedClassifier(nn.Module):
    """A classifier and its masker as one module, for export: images in, the classifier's outputs and the map out.

    Args:
        classifier: classifier as it came, or as it was trained alongside.
        masker: masker that was trained on the classifier's activations.
        stages: stages that the masker reads.
    """

    def __init__(self, classifier: nn.Module, masker: MaskerNetwork, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.classifier, self.masker, self.stages = classifier, masker, tuple(stages)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Maps images (N, C, H, W) to the classifier's outputs by name and ``saliency_map`` (N, 1, H, W)."""
        with reading(self.classifier, self.stages) as activations:
            outputs = flatten_outputs(self.classifier(image))
        return {**outputs, SALIENCY_MAP: self.masker([activations[each.name] for each in self.stages])}
