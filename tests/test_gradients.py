"""Gradients of whole networks against torch: plain and layer-masked, with respect to the image and to the mask.

The layer-masked side in torch is the reference of this directory, which autograd differentiates. Networks have kinks:
where rounding decides a ReLU or a maximum, torch in single and in double precision disagree too. So torch runs in
double precision, and images are left out on which its own single precision is not within tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from reference.layer_masking import MaskedReference
from torch import Tensor, nn

import masktool
from benchmarks.random_weights import cloudy_images, draw_weights
from masktool.contract import Loss
from masktool.exporters.sources import Source, load_source
from masktool.runtime.gradients import Gradient

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
TOLERANCE = 1e-4
"""Relative to the largest entry of the image's gradient."""
SIDE = 64
BATCH = 5
TARGET = 3
LEAST_COMPARED = 0.4
"""Share of images that must be free of kinks within rounding for the comparison to say something."""
QUICK = ["resnet18"]
ALL = ["resnet18", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny"]
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]


@pytest.fixture(scope="module", params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(name: str, torchvision_models: ModuleType) -> nn.Module:
    module: nn.Module = torchvision_models.get_model(name, weights=None)
    if name == "vgg11_bn":  # its classifier takes 7 × 7 places, of which 64 pixels leave 2 × 2
        module.avgpool = nn.Identity()
        module.classifier[0] = nn.Linear(512 * 2 * 2, 4096)
    draw_weights(module, torch.Generator().manual_seed(0), (SIDE, SIDE))
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def source(network: nn.Module) -> Source:
    """The network as torch exports it, once for all files."""
    return load_source(network, input_size=(SIDE, SIDE))


@pytest.fixture(scope="module")
def session(source: Source, tmp_path_factory: pytest.TempPathFactory) -> masktool.MaskedSession:
    path = tmp_path_factory.mktemp("gradients") / "masked.onnx"
    masktool.export(source, path, gradient="logit")
    return masktool.load(path)


def draw() -> tuple[Tensor, Tensor]:
    """Returns images and soft masks in (.05, .95): binary ones tie in every maximum."""
    generator = torch.Generator().manual_seed(1)
    masks = 0.05 + 0.9 * torch.rand(BATCH, 1, SIDE, SIDE, generator=generator)
    return cloudy_images(BATCH, (SIDE, SIDE), generator), masks


def gradients_in_torch(forward: Callable[..., Tensor], *inputs: Tensor) -> list[np.ndarray]:
    """Returns the gradients of the target's logit with respect to each input."""
    leaves = [value.detach().clone().requires_grad_(True) for value in inputs]
    forward(*leaves)[:, TARGET].sum().backward()
    return [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]


def compare(ours: np.ndarray, single: np.ndarray, double: np.ndarray) -> None:
    """Asserts agreement on every image on which torch agrees with itself."""
    scale = np.abs(double).max(axis=(1, 2, 3))
    own = np.abs(single - double).max(axis=(1, 2, 3)) / scale
    smooth = own <= TOLERANCE / 2
    assert smooth.mean() >= LEAST_COMPARED
    assert (np.abs(ours - double).max(axis=(1, 2, 3)) / scale)[smooth].max() <= TOLERANCE


def test_plain(network: nn.Module, session: masktool.MaskedSession) -> None:
    images, _ = draw()
    (single,) = gradients_in_torch(network, images)
    (double,) = gradients_in_torch(network.double(), images.double())
    network.float()
    found = session.gradient(images.numpy(), target=TARGET)
    assert found.image is not None
    compare(found.image, single, double)
    alone = session.gradient(images[:1].numpy(), target=[TARGET])
    assert alone.image is not None
    np.testing.assert_allclose(alone.image, found.image[:1], rtol=0, atol=TOLERANCE * np.abs(found.image[0]).max())


def test_layer_masked(network: nn.Module, session: masktool.MaskedSession) -> None:
    images, masks = draw()
    single = gradients_in_torch(MaskedReference(network, images[:1], BATCH).run, images, masks)
    exact_reference = MaskedReference(network.double(), images[:1].double(), BATCH)
    double = gradients_in_torch(exact_reference.run, images.double(), masks.double())
    network.float()
    found = session.gradient(images.numpy(), masks.numpy(), target=TARGET, of=("image", "mask"))
    for ours, own, exact in zip((found.image, found.mask), single, double, strict=True):
        assert ours is not None
        compare(ours, own, exact)


def test_one_image_under_many_masks_has_a_gradient_for_each(session: masktool.MaskedSession) -> None:
    images, masks = draw()
    together = session.gradient(images[:1].numpy(), masks.numpy(), target=TARGET, of=("image", "mask"))
    repeated = images[:1].expand(BATCH, -1, -1, -1).numpy()
    apart: Gradient = session.gradient(repeated, masks.numpy(), target=TARGET, of=("image", "mask"))
    assert together.image is not None
    assert together.image.shape == (BATCH, 3, SIDE, SIDE)
    np.testing.assert_array_equal(together.image, apart.image)
    np.testing.assert_array_equal(together.mask, apart.mask)


@pytest.mark.parametrize("loss", ["logit", "log-softmax", "softmax"])
def test_losses(network: nn.Module, session: masktool.MaskedSession, loss: Loss) -> None:
    ends: dict[str, Callable[[Tensor], Tensor]] = {
        "logit": lambda logits: logits,
        "log-softmax": lambda logits: torch.log_softmax(logits, dim=1),
        "softmax": lambda logits: torch.softmax(logits, dim=1),
    }
    images, _ = draw()
    (single,) = gradients_in_torch(lambda value: ends[loss](network(value)), images)
    double = network.double()
    (exact,) = gradients_in_torch(lambda value: ends[loss](double(value)), images.double())
    expected = ends[loss](double(images.double()))[:, TARGET].numpy()
    network.float()
    found = session.gradient(images.numpy(), target=TARGET, loss=loss)
    assert found.image is not None
    np.testing.assert_allclose(found.objective, expected, rtol=1e-4)
    compare(found.image, single, exact)


def test_outputs_are_those_of_the_file_without_gradients(
    source: Source, session: masktool.MaskedSession, tmp_path: Path
) -> None:
    images, masks = draw()
    masktool.export(source, tmp_path / "plain.onnx")
    with masktool.load(tmp_path / "plain.onnx") as plain:
        np.testing.assert_allclose(
            session(images.numpy(), masks.numpy()), plain(images.numpy(), masks.numpy()), rtol=1e-5, atol=1e-5
        )
        assert session.output_names == plain.output_names
