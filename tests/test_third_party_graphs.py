"""Real files of other people's exporters: each exports exactly, and classifies every image as its source does.

Files called ``light_…`` hold constant weights: their topology is all that they test. What each network wants as input,
and how many images it gets right, was found by trying the usual preprocessings on the sources.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from PIL import Image
from processor import FLAGS, SMALL_BLOCK, channels_in_blocks

import masktool
from masktool.exporters.parity import open_session
from masktool.exporters.tolerance import ONES_TOLERANCE

CROP = 224
CHUNK = 64
"""Images per run of the exported file."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
BGR_MEAN = (104, 117, 123)
OPEN_SIZES = {"paddle_ocr_cls.onnx": (48, 192)}
"""(height, width) of files that leave theirs open."""

STEPS_IN_SMALL_BLOCKS = {"weights/squeezenet11_caffe2_fp16.onnx": float(np.finfo(np.float16).eps)}
"""How far files may lie from their sources where a block holds 8 channels: one step of the float16 that they return.

The mean over the 1000 maps of classes runs in blocks there in the source alone. It rounds a float32 differently, by
1e-7, which the cast of the answer turns into a step of float16 where it lies between two.
"""


def unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(255)


def as_it_is(pixels: np.ndarray) -> np.ndarray:
    return pixels


def signed(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(127.5) - 1


def caffe(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., ::-1] - np.float32(BGR_MEAN)


def normalised(statistics: tuple) -> Callable[[np.ndarray], np.ndarray]:
    mean, deviation = (np.float32(values) for values in statistics)
    return lambda pixels: (unit(pixels) - mean) / deviation


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a network with real weights wants, and how many images of its data it gets right."""

    data: str
    prepare: Callable[[np.ndarray], np.ndarray]
    correct: int


TRAINED = {
    "weights/cifar_resnet20_ts_op13.onnx": Trained("cifar", normalised(IMAGENET), 322),
    "weights/cifar_resnet56_dyn_op18.onnx": Trained("cifar", normalised(IMAGENET), 328),
    "weights/squeezenet11_caffe2_fp32.onnx": Trained("photographs", caffe, 24),
    "weights/squeezenet11_caffe2_fp16.onnx": Trained("photographs", caffe, 24),
    "weights/mobilenet_v1_0.25_224_tf2onnx_nchw.onnx": Trained("photographs", signed, 24),
    "weights/mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx": Trained("photographs", signed, 24),
    "onnx/cifar10_small_tf2onnx_nhwc.onnx": Trained("cifar", unit, 233),
    "onnx/cifar_resnet_2b.onnx": Trained("cifar", normalised(IMAGENET), 276),
    "onnx/sri_resnet_a.onnx": Trained("cifar", normalised(CIFAR), 303),
    "onnx/cifar_base_kw_pt04.onnx": Trained("cifar", normalised(IMAGENET), 236),
    "onnx/winml_image_classifier.onnx": Trained("cifar", signed, 243),
    "onnx/cntk_mnist.onnx": Trained("mnist", as_it_is, 493),
    "onnx/keras2onnx_mnist_cnn2.onnx": Trained("mnist", unit, 494),
    "onnx/convnet_avgpool_pad.onnx": Trained("mnist", unit, 488),
    "onnx/dianna_mnist_binary.onnx": Trained("zeros and ones", as_it_is, 109),
}
ONLY_THEIR_TOPOLOGY = (
    "blazeface_front_nhwc", "lenet5_ezkl", "light_bvlc_alexnet", "light_inception_v1", "light_resnet50",
    "light_shufflenet", "matlab_rul_small_window20", "paddle_ocr_cls", "stm32_mbv2_128_nchw", "ultraface_rfb320",
    "yunet_s_320",
)  # fmt: skip
"""Without data to measure them on: no weights, no training, or detectors and regressors."""
LARGE = {f"onnx/light_{name}.onnx" for name in ("bvlc_alexnet", "inception_v1", "resnet50")}
"""They take seconds each; the operators of theirs are in others too."""
MANY_PASSES = {"weights/cifar_resnet56_dyn_op18.onnx", "weights/squeezenet11_caffe2_fp16.onnx"}
"""So do all images of theirs; networks of their kinds are among the others."""
FILES = [*TRAINED, *(f"onnx/{name}.onnx" for name in ONLY_THEIR_TOPOLOGY)]


@pytest.fixture(scope="module")
def exported(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple]:
    """Exports a file once: name → (path, metadata)."""
    done: dict[str, tuple] = {}

    def export(name: str) -> tuple:
        if name not in done:
            path = tmp_path_factory.mktemp("masked") / "masked.onnx"
            done[name] = (
                path,
                masktool.export(data_dir / name, path, input_size=OPEN_SIZES.get(Path(name).name)).metadata,
            )
        return done[name]

    return export


def test_no_file_is_left_out(data_dir: Path) -> None:
    there = {
        str(path.relative_to(data_dir)) for kind in ("onnx", "weights") for path in data_dir.glob(f"{kind}/*.onnx")
    }
    assert there == set(FILES)


@pytest.mark.parametrize("name", quickly({*FILES} - LARGE, FILES))
def test_it_exports_exactly(exported: Callable[[str], tuple], name: str) -> None:
    path, metadata = exported(name)
    figures, tolerance = metadata.parity, ONES_TOLERANCE
    if channels_in_blocks(FLAGS) == SMALL_BLOCK:
        tolerance = STEPS_IN_SMALL_BLOCKS.get(name, ONES_TOLERANCE)
    assert figures["ones"] <= tolerance
    assert figures["left_out"] <= tolerance
    assert figures["invariance"] == 0
    assert figures["response"] > 0 or "light" in name
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("name", quickly({*TRAINED} - MANY_PASSES, TRAINED))
def test_it_classifies_every_image_as_its_source_does(
    exported: Callable[[str], tuple], data_dir: Path, name: str
) -> None:
    network = TRAINED[name]
    pixels, labels = read_images(data_dir, network.data)
    source, masked = open_session(str(data_dir / name)), open_session(str(exported(name)[0]))
    image = next(value for value in source.get_inputs() if len(value.shape) == 4)
    images = network.prepare(pixels)
    images = images if image.shape[3] == images.shape[3] else images.transpose(0, 3, 1, 2)
    images = np.ascontiguousarray(images, np.float16 if "float16" in image.type else np.float32)
    expected = classify_source(source, image, images)
    np.testing.assert_array_equal(classify(masked, image.name, images), expected)
    assert int((expected == labels).sum()) == network.correct


def classify_source(
    session: onnxruntime.InferenceSession, image: onnxruntime.NodeArg, images: np.ndarray
) -> np.ndarray:
    """Returns the class of each image, in runs of as many images as the file wants."""
    step = image.shape[0] if isinstance(image.shape[0], int) else CHUNK
    parts = [session.run(None, {image.name: images[i : i + step]})[0] for i in range(0, len(images), step)]
    return np.concatenate([part.reshape(len(part) if part.ndim > 1 else 1, -1) for part in parts]).argmax(1)


def classify(session: onnxruntime.InferenceSession, image_input: str, images: np.ndarray) -> np.ndarray:
    """Returns the class of each image."""
    parts = [session.run(None, {image_input: images[i : i + CHUNK]})[0] for i in range(0, len(images), CHUNK)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts]).argmax(1)


def read_images(folder: Path, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels (N, H, W, C) float32, 0 to 255, and labels (N,)."""
    if data == "photographs":
        return read_photographs(folder / "images")
    if data == "cifar":
        archive = np.load(folder / "cifar" / "cifar10_test_lossless.npz")
        return archive["images"].astype(np.float32), archive["labels"]
    archive = np.load(folder / "mnist" / "mnist_test_500.npz")
    chosen = archive["labels"] < (2 if data == "zeros and ones" else 10)
    return archive["images"][chosen][..., None].astype(np.float32), archive["labels"][chosen]


def read_photographs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre crops of photographs whose short side is 256, and their labels."""
    labels = json.loads((folder / "labels.json").read_text())
    crops = []
    for name in labels:
        pixels = np.asarray(Image.open(folder / name).convert("RGB"), np.float32)
        top, left = (pixels.shape[0] - CROP) // 2, (pixels.shape[1] - CROP) // 2
        crops.append(pixels[top : top + CROP, left : left + CROP])
    return np.stack(crops), np.array([entry["index"] for entry in labels.values()])
