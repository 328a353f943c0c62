"""Small networks and the files that explain themselves made from them."""

from pathlib import Path

import numpy as np
import onnx
from networks.small_graphs import parse

import masktool
from masktool.contract import Preprocessing

SIZE = (12, 10)
LABELS = ("cat", "dog", "bird", "fish")
NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
all (float[N, 3, 12, 10] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
"""
BATCH_MIXING = NETWORK.replace(
    "logits = Gemm(flat, weight)",
    "own = Gemm(flat, weight) mean = ReduceMean<keepdims = 1>(own) logits = Sub(own, mean)",
)
"""Subtracts the mean over the whole batch, so that the file takes one image at a time."""


def write_network(path: Path, network: str = NETWORK) -> Path:
    """Writes the plain network."""
    onnx.save(parse(network), path)
    return path


def write_explained(path: Path, method: str = "occlusion", network: str = NETWORK, **options) -> Path:
    """Writes a file that explains itself, and beside it the plain ``network.onnx``; every option can be changed."""
    plain = write_network(path.parent / "network.onnx", network)
    known = {
        "output_kind": "logits",
        "labels": LABELS,
        "preprocessing": Preprocessing(size=SIZE, resize="exact", std=(0.2, 0.2, 0.2)),
    }
    masktool.export_explained(plain, path, method, **(known | options))
    return path


def images(count: int = 1) -> np.ndarray:
    """Returns images of noise, as the networks take them."""
    return np.random.default_rng(3).normal(size=(count, 3, *SIZE)).astype(np.float32)
