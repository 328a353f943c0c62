"""The networks that are explained, each as a plain ONNX file that both versions export from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.real_networks import build_efficientnet_lite0
from masktool.exporters.sources import load_source
from masktool.exporters.storage import serialise

SIZE = (224, 224)
SHAPE = {"size": SIZE, "resize": "shortest", "resize_to": 256}
IMAGENET = {**SHAPE, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CAFFE = {**SHAPE, "channel_order": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)}
LITE = {**SHAPE, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
"""What EfficientNet-Lite was trained with: pixels less 127, divided by 128."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to explain.

    Attributes:
        title: its name in the table.
        preprocessing: how a photograph becomes its input, as JSON values.
        options: further options of the export.
        build: returns the torch module; None where it is a file.
    """

    title: str
    preprocessing: dict[str, Any]
    options: dict[str, Any]
    build: Callable[[], Any] | None = None


def build_resnet50() -> Any:
    """Returns a ResNet-50 of random weights of unit size, so that its answer depends on the photograph."""
    import torch

    from benchmarks.random_weights import draw_weights
    from benchmarks.torchvision_networks import import_torchvision_models

    module = import_torchvision_models().resnet50(weights=None)
    return draw_weights(module, torch.Generator().manual_seed(0), SIZE)


NETWORKS = {
    "squeezenet": Network("SqueezeNet 1.1", CAFFE, {}),
    "efficientnet-lite0": Network(
        "EfficientNet-Lite0", LITE, {"output_kind": "logits"}, build_efficientnet_lite0
    ),
    "resnet50": Network("ResNet-50, random weights", IMAGENET, {"output_kind": "logits"}, build_resnet50),
}  # fmt: skip


def write_plain(name: str, given: Path | None, path: Path) -> Path:
    """Returns the plain ONNX file of a network: the one that was given, else one written from torch."""
    build = NETWORKS[name].build
    if build is None:
        if given is None:
            raise SystemExit(f"{name}: give its ONNX file with --file {name}=PATH")
        return given
    if not path.exists():
        path.write_bytes(serialise(load_source(build(), input_size=SIZE).model))
    return path
