"""Every supported architecture, with random weights of unit size, in ONNX Runtime and beside the reference.

Relative figures are max|Δ| / max|logit of the unmasked image|.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from networks.cifar_resnet import resnet20
from reference import windows
from reference.layer_masking import MaskedReference
from reference.masks import binary_masks, soft_masks
from torch import Tensor, nn

import masktool
from benchmarks.random_weights import cloudy_images, draw_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
BATCHES = (1, 3, 8)
TOLERANCE = 1e-5
"""Relative; float32 rounding of the same sums in another order."""
SOFT_TOLERANCE = 1e-4
"""Relative; soft masks divide by small sums."""
LEAST_MOVE = 0.01
"""Relative; a masked half that moves the logits by less would test nothing."""
FUSED_DIFFERENTLY = {
    "densenet121": "the CPU provider's NCHWc pass (the last level of optimisation) turns the 62 stand-alone batch"
    " normalisations of the original into convolutions; masks in between keep all but one as they are",
}
"""Architectures whose ones mask is not exactly the original, and why; exact without that pass, and within TOLERANCE."""
QUICK_SIDES = {
    "alexnet": 224,  # its classifier takes 6×6 positions, VGG's 7×7
    "vgg11_bn": 224,
    "resnet18": 128,
    "resnet50": 128,
    "squeezenet1_1": 128,
    "mobilenet_v2": 128,
    "mobilenet_v3_small": 128,
    "efficientnet_b0": 128,
    "densenet121": 128,
    "googlenet": 128,
    "shufflenet_v2_x0_5": 128,
    "regnet_y_400mf": 128,
    "cifar_resnet20": 32,
}
QUICK_ENOUGH = frozenset(QUICK_SIDES) - {
    *("vgg11_bn", "resnet50", "densenet121", "googlenet", "regnet_y_400mf"),
    *("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "alexnet", "resnet18"),
}
"""In the quick run; the others take up to half a minute each at any size."""
FULL_SIDE = 224
QUICK_WIDTH = 256
"""Of fully connected hidden layers: AlexNet's and VGG's 4,096 make files of half a gigabyte."""
EXPORTED_FROM_MODULE = ("alexnet", "resnet18", "squeezenet1_1", "cifar_resnet20")
"""In the quick run; the others from their plain ONNX file, which spares a second run of torch's exporter."""


class Variant(NamedTuple):
    """An architecture as one test run takes it: at its full size and from the module itself, or quicker."""

    name: str
    side: int
    quick: bool


CASES = [
    pytest.param(Variant(name, side, quick=True), id=name, marks=() if name in QUICK_ENOUGH else pytest.mark.slow)
    for name, side in QUICK_SIDES.items()
] + [
    pytest.param(Variant(name, FULL_SIDE, quick=False), id=f"{name}-full", marks=pytest.mark.slow)
    for name in QUICK_SIDES
    if name != "cifar_resnet20"
]


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture, exported twice: as torch's exporter does it, and by masktool.

    Attributes:
        reference: in float64, so that what differs is the exported model's rounding alone.
        images: (8, 3, H, W); single-image tests take the first.
        masks: (5, 1, H, W) of 0 and 1.
        scale: max|logit| of the unmasked images.
    """

    name: str
    reference: MaskedReference
    plain_path: Path
    masked_path: Path
    plain: onnxruntime.InferenceSession
    masked: onnxruntime.InferenceSession
    images: np.ndarray
    masks: np.ndarray
    soft_masks: np.ndarray
    scale: float

    def run(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Returns the exported model's logits, (N, K)."""
        return self.masked.run(None, {"image": images} if masks is None else {"image": images, "mask": masks})[0]

    def run_plain(self, images: np.ndarray) -> np.ndarray:
        """Returns the original model's logits, (N, K)."""
        return self.plain.run(None, {"image": images})[0]

    def run_reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the reference's logits for the first image under the masks (5, K) and the soft masks (2, K)."""
        masks = torch.from_numpy(np.concatenate([self.masks, self.soft_masks]))
        logits = self.reference(torch.from_numpy(self.images[:1]).double(), masks.double()).numpy()
        return logits[: len(self.masks)], logits[len(self.masks) :]

    def relative(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """Returns max|Δ| / max|logit|; NaN is never small."""
        assert logits.shape == expected.shape
        return float(np.abs(logits - expected).max() / self.scale)


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, torchvision_models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """Builds, draws weights for and exports one architecture at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's threads wait busily, and the other core belongs to the other worker
    variant: Variant = request.param
    size, generator = (variant.side, variant.side), torch.Generator().manual_seed(0)
    module = draw_weights(build(variant, torchvision_models), generator, size)
    images = cloudy_images(max(BATCHES), size, generator)
    masks, soft = binary_masks(size, generator), soft_masks(size, generator)
    directory = tmp_path_factory.mktemp(variant.name)
    plain_path, masked_path = directory / "plain.onnx", directory / "masked.onnx"
    export_plain(module, images, plain_path)
    from_module = not variant.quick or variant.name in EXPORTED_FROM_MODULE
    masktool.export(module if from_module else plain_path, masked_path, input_size=size)
    plain, masked = open_session(plain_path), open_session(masked_path)
    yield Case(
        name=variant.name,
        reference=MaskedReference(module.double(), images[:1].double(), len(masks) + len(soft)),
        plain_path=plain_path,
        masked_path=masked_path,
        plain=plain,
        masked=masked,
        images=images.numpy(),
        masks=masks.numpy(),
        soft_masks=soft.numpy(),
        scale=float(np.abs(plain.run(None, {"image": images.numpy()})[0]).max()),
    )
    for file in directory.iterdir():
        file.unlink()  # up to half a gigabyte each
    torch.set_num_threads(threads)


def build(variant: Variant, torchvision_models) -> nn.Module:
    """Returns the architecture without trained weights."""
    if variant.name == "cifar_resnet20":
        return resnet20()
    options = (
        {"init_weights": False} if variant.name in ("googlenet", "vgg11_bn") else {}
    )  # their own takes many seconds
    module = torchvision_models.get_model(variant.name, weights=None, **options)
    if variant.quick and variant.name in ("alexnet", "vgg11_bn"):
        narrow_classifier(module.classifier)
    return module


def narrow_classifier(classifier: nn.Sequential) -> None:
    """Gives hidden fully connected layers QUICK_WIDTH features."""
    first, *hidden, last = (index for index, layer in enumerate(classifier) if isinstance(layer, nn.Linear))
    classifier[first] = nn.Linear(classifier[first].in_features, QUICK_WIDTH)
    for index in hidden:
        classifier[index] = nn.Linear(QUICK_WIDTH, QUICK_WIDTH)
    classifier[last] = nn.Linear(QUICK_WIDTH, classifier[last].out_features)


def export_plain(module: nn.Module, images: Tensor, path: Path) -> None:
    """Exports the module as it is, through torch's exporter."""
    program = torch.onnx.export(
        module,
        (images[:2],),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    program.save(path)


def open_session(
    path: Path, level: onnxruntime.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> onnxruntime.InferenceSession:
    """Opens a model as a user would, on the CPU provider."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_weights_keep_signals_of_unit_size(case):
    image, half = case.images[:1], case.masks[:1]
    assert case.relative(case.run_plain(image * half), case.run_plain(image)) >= LEAST_MOVE


def test_ones_mask_is_the_original(case):
    images, tolerance = case.images[:3], TOLERANCE if case.name in FUSED_DIFFERENTLY else 0
    original = case.run_plain(images)
    assert case.relative(case.run(images), original) <= tolerance
    assert case.relative(case.run(images, np.ones_like(images[:, :1])), original) <= tolerance
    assert case.relative(case.run(images, np.ones_like(images[:1, :1])), original) <= tolerance
    if case.name in FUSED_DIFFERENTLY:  # the pass named there is the only one to blame
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        sessions = [open_session(path, level) for path in (case.plain_path, case.masked_path)]
        original, masked = (session.run(None, {"image": images})[0] for session in sessions)
        assert np.array_equal(masked, original)


def test_nan_and_infinity_under_the_mask_change_nothing(case):
    image = case.images[:1]
    poison = np.array([np.nan, np.inf, -np.inf], np.float32).reshape(1, 3, 1, 1)
    for masks in (case.masks, case.soft_masks):
        logits = case.run(np.repeat(image, len(masks), axis=0), masks)
        assert np.array_equal(case.run(np.where(masks == 0, poison, image), masks), logits)


def test_batches_agree(case):
    masks = np.resize(case.masks, (max(BATCHES), *case.masks.shape[1:]))
    whole = case.run(case.images, masks)
    assert np.isfinite(whole).all()
    for batch in BATCHES:
        assert case.relative(case.run(case.images[:batch], masks[:batch]), whole[:batch]) <= TOLERANCE


def test_one_image_against_five_masks_equals_five_runs(case):
    image = case.images[:1]
    together = case.run(image, case.masks)
    assert case.relative(together, np.concatenate([case.run(image, mask[None]) for mask in case.masks])) <= TOLERANCE
    assert case.relative(together, case.run(np.repeat(image, len(case.masks), axis=0), case.masks)) <= TOLERANCE


def test_masks_agree_with_the_reference(case):
    expected, soft_expected = case.run_reference()
    image = case.images[:1]
    assert case.relative(expected, case.run_plain(image).repeat(5, axis=0)) >= LEAST_MOVE
    assert case.relative(case.run(image, case.masks), expected) <= TOLERANCE
    assert case.relative(case.run(image, case.soft_masks), soft_expected) <= SOFT_TOLERANCE


def test_a_forgotten_fill_would_be_noticed(case, monkeypatch):
    monkeypatch.setattr(windows, "neighbor_fill", lambda value, *_: value)
    without_fill, _ = case.run_reference()
    assert case.relative(case.run(case.images[:1], case.masks), without_fill) >= 100 * TOLERANCE
