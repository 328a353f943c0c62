"""Partial masking of ResNets beside an independent torch version, and that version against rows worked out by hand.

Relative figures are max|Δ| / max|logit of the unmasked image|.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from reference.partial import Seen, convolve, partial_resnet, pool_globally
from torch import Tensor, nn

import masktool
from benchmarks.random_weights import cloudy_images, draw_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIDE = 96
BLOCKS = {"one block a stage": [1, 1, 1, 1], "ResNet-50": [3, 4, 6, 3]}
"""Bottleneck blocks of the four stages."""
TOLERANCE = 1e-5
"""Relative; rounding in single precision. Counting the padding as missing makes 0.28 or more."""
ONES_TOLERANCE = 1e-5
DOUBLE_PRECISION = 1e-12
LEAST_MOVE = 0.01
"""Relative; a mask that moves the logits by less would test nothing."""


def random_masks(generator: torch.Generator) -> Tensor:
    """Draws five masks (5, 1, SIDE, SIDE) of 0 and 1: blocks of 32, 16 and 8 pixels, and half and 2 % of the pixels."""
    masks = []
    for cell, share in ((32, 0.4), (16, 0.5), (8, 0.3), (1, 0.5), (1, 0.02)):
        cells = torch.rand(SIDE // cell, SIDE // cell, generator=generator) < share
        masks.append(cells.repeat_interleave(cell, 0).repeat_interleave(cell, 1))
    return torch.stack(masks)[:, None].double()


@dataclasses.dataclass(frozen=True)
class Case:
    """A ResNet with random weights of unit size in double precision.

    Attributes:
        scale: max|logit| of the unmasked image.
    """

    network: Any
    image: Tensor
    masks: Tensor
    scale: float

    def run_original(self) -> np.ndarray:
        """Returns the logits of the unmasked network."""
        with torch.no_grad():
            return self.network(self.image).numpy()

    def run_reference(self, masks: Tensor) -> np.ndarray:
        """Returns the reference's logits."""
        images = self.image.expand(len(masks), -1, -1, -1)
        return partial_resnet(self.network, images, masks).numpy()

    def relative(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """Returns max|Δ| / max|logit|; NaN is never small."""
        assert logits.shape == expected.shape
        return float(np.abs(logits - expected).max() / self.scale)


@dataclasses.dataclass(frozen=True)
class Exported:
    """The same network as masktool exports it."""

    session: onnxruntime.InferenceSession
    parity: Mapping[str, float]

    def run(self, case: Case, mask: Tensor | None) -> np.ndarray:
        """Returns the logits of the case's image."""
        feed = {} if mask is None else {"mask": mask.numpy().astype(np.float32)}
        return self.session.run(None, {"image": case.image.numpy().astype(np.float32)} | feed)[0]


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "ResNet-50" else ()) for name in BLOCKS],
)
def case(request: pytest.FixtureRequest, torchvision_models: ModuleType) -> Case:
    """Draws weights, image and masks."""
    generator = torch.Generator().manual_seed(0)
    resnet = torchvision_models.resnet
    network = resnet.ResNet(resnet.Bottleneck, BLOCKS[request.param])
    network = draw_weights(network, generator, (SIDE, SIDE)).double()
    image = cloudy_images(1, (SIDE, SIDE), generator).double()
    with torch.no_grad():
        scale = float(network(image).abs().max())
    return Case(network, image, random_masks(generator), scale)


@pytest.fixture(scope="module")
def exported(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports once."""
    path: Path = tmp_path_factory.mktemp("partial") / "resnet.onnx"
    network = copy.deepcopy(case.network).float()
    metadata = masktool.export(network, path, input_size=(SIDE, SIDE), masking="partial").metadata
    assert metadata.masking == "partial"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    path.unlink()  # a hundred megabytes
    return Exported(session, metadata.parity)


def test_five_random_masks_agree_with_the_reference(case: Case, exported: Exported):
    expected = case.run_reference(case.masks)
    for mask, logits in zip(case.masks, expected, strict=True):
        assert case.relative(exported.run(case, mask[None]), logits[None]) <= TOLERANCE
    assert case.relative(exported.run(case, case.masks), expected) <= TOLERANCE


def test_ones_are_the_original_network(case: Case, exported: Exported):
    for mask in (None, torch.ones(1, 1, SIDE, SIDE)):
        assert case.relative(exported.run(case, mask), case.run_original()) <= ONES_TOLERANCE
    assert max(exported.parity["ones"], exported.parity["left_out"]) <= ONES_TOLERANCE
    assert exported.parity["invariance"] == 0


def test_an_empty_mask_leaves_the_classifiers_bias(case: Case, exported: Exported):
    logits = exported.run(case, torch.zeros(1, 1, SIDE, SIDE))
    assert case.relative(logits, case.network.fc.bias.detach().numpy()[None]) <= ONES_TOLERANCE


def test_every_one_of_these_masks_moves_the_logits(case: Case):
    for logits in case.run_reference(case.masks):
        assert case.relative(logits[None], case.run_original()) >= LEAST_MOVE


def test_the_reference_under_ones_is_the_original_network(case: Case):
    ones = torch.ones(1, 1, SIDE, SIDE, dtype=torch.float64)
    assert case.relative(case.run_reference(ones), case.run_original()) <= DOUBLE_PRECISION


def test_what_is_missing_never_matters_to_the_reference(case: Case):
    masks = case.masks
    poisoned = torch.where(masks == 0, torch.tensor([torch.nan, torch.inf, -1e30]).view(1, 3, 1, 1), case.image)
    assert torch.equal(
        partial_resnet(case.network, poisoned, masks),
        partial_resnet(case.network, case.image.expand(len(masks), -1, -1, -1), masks),
    )


def box_conv(width: int, bias: float, **options: Any) -> nn.Conv2d:
    """Builds a convolution that adds up ``width`` pixels of a row and a bias."""
    conv = nn.Conv2d(1, 1, (1, width), **options).double()
    nn.init.ones_(conv.weight)
    nn.init.constant_(conv.bias, bias)
    return conv


def row(value: list[float], mask: list[float]) -> Seen:
    """Returns one row of pixels, (1, 1, 1, W)."""
    return Seen(*torch.tensor([value, mask], dtype=torch.float64).view(2, 1, 1, 1, -1))


@pytest.mark.parametrize(
    ("options", "value", "mask", "expected", "new_mask"),
    [
        # in front a window of two pixels, one kept, then three with two kept: 2 / (1/2), 6 / (2/3), 4 / (1/2)
        ({"padding": (0, 1)}, [2, 0, 4], [1, 0, 1], [14, 19, 18], [1, 1, 1]),
        # all kept: no renormalisation, at the border neither
        ({"padding": (0, 1)}, [2, 3, 4], [1, 1, 1], [15, 19, 17], [1, 1, 1]),
        # the last window sees nothing: 0, without the bias
        ({}, [6, 0, 0, 0], [1, 0, 0, 0], [28, 0], [1, 0]),
        # pixels 0 2 4 and 2 4 6
        ({"dilation": 2, "stride": 2}, [1, 0, 2, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0], [14.5, 16], [1, 1]),
    ],
)
def test_a_convolution_of_a_row_worked_out_by_hand(options, value, mask, expected, new_mask):
    result = convolve(row(value, mask), box_conv(3, bias=10, **options))
    assert result.value.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert result.mask.flatten().tolist() == new_mask


def test_the_global_mean_counts_kept_positions():
    assert pool_globally(row([3, 0, 5], [1, 0, 1])).tolist() == [[4]]
    assert pool_globally(row([0, 0], [0, 0])).tolist() == [[0]]
