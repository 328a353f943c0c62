"""What a mask costs: the masked model against the plain one, on the CPU provider.

python -m benchmarks.masked_forward --network resnet50 --batch 8
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir

import masktool
from benchmarks.timing import compare
from benchmarks.torchvision_networks import import_torchvision_models
from masktool.contract import MASK_INPUT
from masktool.exporters.parity import open_session
from masktool.exporters.sources import load_source

GRID = 14
"""Masks are drawn on a grid of so many cells a side, each kept with p = .5."""


def draw_masks(batch: int, size: int) -> np.ndarray:
    """Returns binary masks (batch, 1, size, size)."""
    cells = np.random.default_rng(0).random((batch, 1, GRID, GRID)) < 0.5
    index = np.arange(size) * GRID // size
    return cells[:, :, index][:, :, :, index].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="name of a torchvision network; its weights are random")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    module = import_torchvision_models().get_model(options.network, weights=None).eval()
    source = load_source(module, input_size=(options.size, options.size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masked.onnx"
        metadata = masktool.export(source, path).metadata
        plain = open_session(ir.to_proto(source.model).SerializeToString())
        masked = open_session(str(path))
    images = np.random.default_rng(1).standard_normal((options.batch, 3, options.size, options.size)).astype(np.float32)
    feeds = {metadata.image_input: images}
    masks = {MASK_INPUT: draw_masks(options.batch, options.size)}
    print(f"{options.network}, batch {options.batch}, {options.size} x {options.size}, CPU provider")
    compare("plain", lambda: plain.run(None, feeds), "masked", lambda: masked.run(None, feeds | masks), options.repeats)


if __name__ == "__main__":
    main()
