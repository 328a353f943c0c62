"""Attention networks: a missing token has no influence, just as if it were not there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import masktool

PATCH = 16
SIDE = 64
BLOCKS = 3
"""Of twelve in the published network: all are alike."""
TOLERANCE = 1e-5
"""Relative to max |logit|: float32, sums in another order."""


@pytest.fixture(scope="module")
def network(torchvision_models: ModuleType) -> nn.Module:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("deit_tiny_patch16_224", img_size=SIDE, depth=BLOCKS, pretrained=False).eval()
    nn.init.normal_(network.head.weight, std=0.1)
    nn.init.normal_(network.pos_embed, std=0.5)
    return network


def drop_tokens(network: nn.Module, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Runs a vision transformer of timm on the class token and the kept patches alone.

    Args:
        network: with a class token in front.
        image: (1, 3, SIDE, SIDE) float32.
        kept: (patches,) bool.
    """
    tokens = network.patch_embed(image)
    tokens = torch.cat([network.cls_token, tokens], dim=1) + network.pos_embed
    tokens = tokens[:, torch.cat([torch.ones(1, dtype=torch.bool), kept])]
    return network.head(network.norm(network.blocks(tokens))[:, 0])


@pytest.fixture(scope="module")
def session(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> masktool.MaskedSession:
    path = tmp_path_factory.mktemp("attention") / "deit.onnx"
    parity = masktool.export(network, path, input_size=(SIDE, SIDE)).metadata.parity
    assert parity["ones"] == parity["invariance"] == 0
    return masktool.load(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_missing_patches_are_as_good_as_dropped(
    network: nn.Module, session: masktool.MaskedSession, share: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    kept = torch.rand((SIDE // PATCH) ** 2, generator=generator) < share
    kept[0] = True
    with torch.no_grad():
        expected = drop_tokens(network, image, kept).numpy()
        unmasked = network(image).numpy()
    blocks = kept.reshape(SIDE // PATCH, SIDE // PATCH).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    logits = session(image.numpy(), blocks[None, None].numpy().astype(np.float32))
    scale = np.abs(expected).max()
    assert np.abs(logits - expected).max() <= TOLERANCE * scale
    assert np.abs(unmasked - expected).max() >= 0.01 * scale


def with_random_head(network: nn.Module) -> nn.Module:
    """Draws the weights of the last linear layer, which some networks start at 0."""
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.1)
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"])
def test_torchvision_networks_with_attention(name: str, torchvision_models: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_parity(with_random_head(getattr(torchvision_models, name)(weights=None)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "mobilevit_s", "mobilevitv2_050", "edgenext_xx_small", "coatnet_0_rw_224"]
)
def test_timm_networks_with_attention(name: str, torchvision_models: ModuleType, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    check_parity(with_random_head(timm.create_model(name, pretrained=False)), tmp_path)


def check_parity(network: nn.Module, folder: Path) -> None:
    parity = masktool.export(network, folder / "masked.onnx", input_size=(224, 224)).metadata.parity
    assert parity["response"] >= 0.01
    assert parity["invariance"] == 0
    assert parity["ones"] <= TOLERANCE
    assert max(parity["batches"], parity["one_image"]) <= TOLERANCE
