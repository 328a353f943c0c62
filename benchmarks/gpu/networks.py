"""The files that are measured: a network as it came, and what masktool makes of it.

Files that are there already are taken, so that a machine without torch, or one whose time is dear, gets them from
another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from masktool.exporters.gradient import WITHOUT_INDICES as LACKING_INDICES

NETWORKS = ("resnet50", "vgg16", "mobilenet_v2", "efficientnet_b0", "vit_b_16")
"""torchvision's names of the networks that are measured by default."""
TINY = "tiny"
"""The network that proves providers, which needs no torch, for runs that try the program and not the provider."""
PLAIN = "plain"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "masked": {},
    "filled": {"masking": "fill"},
    "gradient": {"gradient": "logit"},
    "fp16": {"precision": "fp16"},
}
"""What a network is exported as, beside the plain file: options of :func:`masktool.export`."""
WITHOUT_INDICES = "gradient-without-indices"
"""The variant ``gradient`` for providers without indices of max pooling, in a file of its own."""
FILES: Mapping[str, Mapping[str, Any]] = {**VARIANTS, WITHOUT_INDICES: {"gradient": "logit", "for_provider": "webgpu"}}
"""All files beside the plain one, as in :data:`VARIANTS`."""
GRIDS = (2, 5, 16, 64)
"""Cells a side of the random images' layers, so that there is structure at several scales."""
MASK_GRID = 7
"""Cells a side of the random masks, each kept with p = .5."""


def file_of(folder: Path, network: str, variant: str, provider: str | None = None) -> Path:
    """Returns the path of a network's file, as it is for a provider."""
    if variant == "gradient" and provider in LACKING_INDICES:
        variant = WITHOUT_INDICES
    return folder / (f"{network}.onnx" if variant == PLAIN else f"{network}.{variant}.onnx")


def missing_files(folder: Path, network: str, providers: Collection[str]) -> list[str]:
    """Returns the names of the files that are not there, of those that providers need; of all, without providers."""
    needed = [
        name for name in FILES if name != WITHOUT_INDICES or not providers or LACKING_INDICES.intersection(providers)
    ]
    return [variant for variant in (PLAIN, *needed) if not file_of(folder, network, variant).exists()]


def write_plain(folder: Path, network: str, size: int) -> None:
    """Writes a torchvision network with random weights of unit size, or the tiny one, as an ONNX file."""
    import onnx
    import onnx_ir as ir

    from benchmarks.gradient import build_network
    from masktool.exporters.sources import load_source
    from masktool.interface.provider_proof import make_network

    target = file_of(folder, network, PLAIN)
    unfinished = target.with_suffix(".unfinished")
    if network == TINY:
        onnx.save(make_network(), unfinished)
    else:
        ir.save(load_source(build_network(network, size), input_size=(size, size)).model, unfinished)
    unfinished.replace(target)


def write_variant(folder: Path, network: str, variant: str) -> None:
    """Exports the plain file of a network. The mask has no default, of which some providers would make a constant."""
    from masktool.exporters import export_source
    from masktool.exporters.sources import load_source
    from masktool.exporters.user_choices import read_settings

    settings = read_settings(mask_required=True, **FILES[variant])
    export_source(load_source(file_of(folder, network, PLAIN)), file_of(folder, network, variant), settings)


def draw_images(count: int, size: int, channels: int = 3) -> np.ndarray:
    """Returns random images (count, channels, size, size) float32 of unit variance, structured at several scales."""
    numbers = np.random.default_rng(0)
    layers = [numbers.standard_normal((count, channels, cells, cells)) for cells in GRIDS if cells <= size]
    image = np.sum([spread_cells(layer, size) for layer in layers], axis=0)
    return (image / np.std(image)).astype(np.float32)


def draw_masks(count: int, size: int) -> np.ndarray:
    """Returns random binary masks (count, 1, size, size) float32."""
    cells = np.random.default_rng(1).random((count, 1, MASK_GRID, MASK_GRID)) < 0.5
    return spread_cells(cells, size).astype(np.float32)


def spread_cells(cells: np.ndarray, size: int) -> np.ndarray:
    """Returns a grid (..., n, n) with each cell spread over its part of size × size pixels."""
    index = np.arange(size) * cells.shape[-1] // size
    return cells[..., index, :][..., index]
