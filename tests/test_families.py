"""One network of every family, exported and beside the reference under the same masks.

Figures are max|Δ| / max|logit|, both under the same mask: some masks double the logits of a network, and with them the
rounding of float32. The reference runs in float64, so that what differs is the exported model's rounding alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from reference.layer_masking import MaskedReference
from reference.masks import binary_masks, soft_masks
from torch import Tensor, nn

import masktool
from benchmarks.architectures import TIMM, TORCHVISION, build
from benchmarks.random_weights import cloudy_images, draw_weights, randomize

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
TOLERANCE = 1e-5
"""Relative; float32 rounding of the same sums in another order."""
SOFT_TOLERANCE = 1e-4
"""Relative; soft masks divide by small sums."""
ONES_TOLERANCE = 1e-12
"""Relative; the reference under a mask of ones is the network itself, in float64."""
LEAST_MOVE = 0.01
"""Relative; a masked half that moves the logits by less would test nothing."""
CNN_FAMILIES = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM]
ATTENTION_FAMILIES = [
    "torchvision:vit_b_16",
    "torchvision:swin_t",
    "torchvision:maxvit_t",
    "timm:deit_tiny_patch16_224",
    "timm:mobilevit_s",
]
SIDE = 96
"""Pixels; small, and the deepest maps still have 3 × 3 positions."""
SIDES = {
    "torchvision:alexnet": 224,  # its classifier takes 6×6 positions, VGG's 7×7
    "torchvision:vgg11_bn": 224,
    "torchvision:inception_v3": 128,
    "torchvision:vit_b_16": 224,  # these have a fixed number of tokens or whole windows at every stage
    "torchvision:swin_t": 224,
    "torchvision:maxvit_t": 224,
    "timm:deit_tiny_patch16_224": 224,
    "timm:mobilevit_s": 128,
}


def timm_network(name: str, **options: Any) -> Callable[[Any], nn.Module]:
    """Returns a builder of one of timm's networks, of fewer layers."""

    def create(_: Any) -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return create


class Rescaled(nn.Module):
    """Maps resized both ways and padded by their own reflection, joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU())
        self.blur = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(24, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        low = self.down(x)
        smooth = F.interpolate(low, scale_factor=2.0, mode="bilinear")
        corners = F.interpolate(self.blur(low), size=x.shape[-2:], mode="bilinear", align_corners=True)
        return self.head(torch.cat([x + F.interpolate(low, scale_factor=2.0), smooth, corners], 1))


class Statistics(nn.Module):
    """Normalisations over height and width, and every way to leave them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.GroupNorm(2, 8), nn.GELU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU())
        self.whole = nn.LayerNorm((8, 16, 16))
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = self.whole(x + self.body(x))
        pooled = [x.mean((2, 3)), x.amax((2, 3)), x.sum((2, 3)) / 256, torch.linalg.vector_norm(x, 2, (2, 3)) / 16]
        return self.head(torch.cat(pooled, 1))


SMALL: dict[str, tuple[Callable[[Any], nn.Module], int]] = {
    "rescaled": (lambda _: Rescaled(), 32),
    "statistics": (lambda _: Statistics(), 32),
    "convnextv2": (timm_network("convnextv2_atto", depths=(1, 1, 1, 1)), 96),
    "skresnet": (timm_network("skresnet18", layers=[1, 1, 1, 1]), 64),
    "resnetv2": (timm_network("resnetv2_50", layers=(1, 1)), 64),
    "deit": (timm_network("deit_tiny_patch16_224", img_size=64, depth=2), 64),
    "swin": (lambda models: models.SwinTransformer([4, 4], 24, [2], [1], [4, 4], num_classes=10), 32),
    "maxvit": (
        lambda models: models.MaxVit((64, 64), 16, 4, [16], [1], 8, 0.0, num_classes=10),
        64,
    ),
}
"""A network of few layers for every kind of rule that test_architectures.py has none of, and the side of its input."""


LONG = ("convnextv2", "deit", "maxvit", "rescaled", "resnetv2", "skresnet", "swin")
"""They take six to eight seconds each; the operators of their kinds are in others of the quick run too."""


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.slow if each in LONG else ()) for each in SMALL])
def test_small_network_agrees_with_the_reference(name, torchvision_models, tmp_path):
    builder, side = SMALL[name]
    compare(builder(torchvision_models), side, tmp_path / "masked.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", CNN_FAMILIES + ATTENTION_FAMILIES)
def test_family_agrees_with_the_reference(name, torchvision_models, tmp_path):
    pytest.importorskip("timm")
    module, _ = build(name)
    compare(module, SIDES.get(name, SIDE), tmp_path / "masked.onnx")


def compare(module: nn.Module, side: int, path: Path) -> None:
    """Exports a network with random weights, runs both under the same masks, and holds one against the other."""
    size, generator = (side, side), torch.Generator().manual_seed(0)
    draw_weights(module, generator, size)
    randomize_projections(module, generator)
    image = cloudy_images(1, size, generator)
    masks = torch.cat([binary_masks(size, generator)[[0, -1]], soft_masks(size, generator)[:1]])
    logits = run_exported(module, path, image, masks)

    module, image, masks = module.double(), image.double(), masks.double()
    original = module(image).detach()
    reference = MaskedReference(module, image, len(masks))
    assert relative(reference(image, torch.ones_like(masks[:1]))[:1], original) <= ONES_TOLERANCE
    expected = reference(image, masks)
    poison = torch.tensor([torch.nan, torch.inf, -1e30], dtype=image.dtype).view(1, 3, 1, 1)
    assert torch.equal(reference(torch.where(masks == 0, poison, image), masks), expected)
    assert relative(expected[:1], original) >= LEAST_MOVE
    for row, tolerance in enumerate([TOLERANCE, TOLERANCE, SOFT_TOLERANCE][: len(masks)]):
        assert relative(logits[row], expected[row]) <= tolerance


@torch.no_grad()
def randomize_projections(module: nn.Module, generator: torch.Generator) -> None:
    """Draws torch's own attention weights as weights: their name, in_proj_weight, hides them from draw_weights."""
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            randomize("weight", part.in_proj_weight, generator)
            randomize("bias", part.in_proj_bias, generator)


def run_exported(module: nn.Module, path: Path, image: Tensor, masks: Tensor) -> Tensor:
    """Exports the network with masktool and runs it on the CPU provider; the logits are (M, K) float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter deprecates parts of itself
        masktool.export(module, path, input_size=tuple(image.shape[-2:]))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: image.numpy(), "mask": masks.numpy()}
    logits: np.ndarray = session.run(None, feeds)[0]
    path.unlink()
    return torch.from_numpy(logits)


def relative(logits: Tensor, expected: Tensor) -> float:
    """Returns max|Δ| / max|expected|; NaN is never small."""
    assert logits.shape == expected.shape
    return float((logits - expected).abs().max() / expected.abs().max())
