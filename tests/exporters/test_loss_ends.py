"""The losses of files with gradients, the entropy above all, against torch's autograd and central differences."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.contract import FIRST_LOSSES, LOSSES, MASK_INPUT, Loss, OutputKind

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
SIZE = (8, 8)
TOLERANCE = 1e-5
"""Relative to the largest entry: float32 through four layers."""
STEP = 1e-6
"""Of central differences in double precision: their own error is about STEP²."""
SINGLE_STEP, SINGLE_TOLERANCE = 2e-3, 5e-3
"""Where only float32 is at hand: a smaller step is lost in its rounding, a larger one leaves the tangent."""
RESOLVED = 1e-7
"""What float32 resolves beside 1, in nats."""
KINDS: tuple[OutputKind, ...] = ("logits", "probabilities", "sigmoid", "binary")


class Network(nn.Module):
    """Smooth, so that differences say something; what it gives is of the kind that a test asks for."""

    def __init__(self, kind: OutputKind, gain: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 6, 3), nn.Tanh())
        self.linear = nn.Linear(6, 1 if kind == "binary" else 4)
        self.kind, self.gain = kind, gain

    def logits(self, images):
        return self.gain * self.linear(self.features(images).mean(dim=(2, 3)))

    def forward(self, images):
        logits = self.logits(images)
        ends = {"probabilities": lambda: logits.softmax(1), "sigmoid": logits.sigmoid}
        return ends.get(self.kind, lambda: logits)()


def objective_in_torch(loss: Loss, kind: OutputKind, logits, target: int):
    """The losses written with torch's own functions: of a softmax, or of one Bernoulli distribution per class."""
    if kind == "sigmoid":
        bernoulli = torch.distributions.Bernoulli(logits=logits)
        if loss == "entropy":
            return bernoulli.entropy().sum(1)
        of_each = {"logit": logits, "log-softmax": nn.functional.logsigmoid(logits), "softmax": logits.sigmoid()}
        return of_each[loss][:, target]
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1) if kind == "binary" else logits
    if loss == "entropy":
        return torch.distributions.Categorical(logits=pair).entropy()
    return {"logit": pair, "log-softmax": pair.log_softmax(1), "softmax": pair.softmax(1)}[loss][:, target]


def draw(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 3, *SIZE)).astype(np.float32)
    return images, (0.05 + 0.9 * rng.random((count, 1, *SIZE))).astype(np.float32)


def exported(network: nn.Module, folder: Path, kind: OutputKind, **options) -> masktool.MaskedSession:
    path = folder / "masked.onnx"
    masktool.export(network, path, input_size=SIZE, output_kind=kind, gradient="logit", **options)
    return masktool.load(path)


class LayerMasked(NamedTuple):
    """A network in single precision, and a session of its layer-masked file with gradients."""

    network: Network
    session: masktool.MaskedSession


def assert_close(found: np.ndarray | None, expected) -> None:
    expected = np.asarray(expected)
    assert found is not None
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.fixture(scope="module", params=KINDS)
def layer_masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LayerMasked:
    """A network of each kind, exported once for all losses: which one is differentiated is an input of the file."""
    torch.manual_seed(0)
    network = Network(request.param, gain=5.0)
    return LayerMasked(network, exported(network, tmp_path_factory.mktemp("layer"), request.param))


@pytest.mark.parametrize("loss", LOSSES)
def test_image_gradients_against_autograd(layer_masked: LayerMasked, loss: Loss) -> None:
    images, _ = draw()
    kind = layer_masked.network.kind
    target = 1 if kind == "binary" else 2
    found = layer_masked.session.gradient(images, target=target, loss=loss)
    double = copy.deepcopy(layer_masked.network).double()
    leaf = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    objective = objective_in_torch(loss, kind, double.logits(leaf), target)
    (expected,) = torch.autograd.grad(objective.sum(), leaf)
    assert_close(found.objective, objective.detach())
    assert_close(found.image, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_gradients_through_a_mask(kind: OutputKind, tmp_path: Path) -> None:
    """Filled with 0, x·m goes through the network: autograd and differences have the mask's gradient too."""
    torch.manual_seed(0)
    network = Network(kind, gain=5.0)
    images, masks = draw()
    session = exported(network, tmp_path, kind, masking="fill")
    found = session.gradient(images, masks, target=0, loss="entropy", of=("image", "mask"))
    double = network.double()
    pixels, kept = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (images, masks))

    def entropy(pixels, kept):
        return objective_in_torch("entropy", kind, double.logits(pixels * kept), 0)

    for ours, expected in zip(
        (found.image, found.mask), torch.autograd.grad(entropy(pixels, kept).sum(), (pixels, kept)), strict=True
    ):
        assert_close(ours, expected)
    direction = torch.randn(kept.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        rise = (entropy(pixels, kept + STEP * direction) - entropy(pixels, kept - STEP * direction)) / (2 * STEP)
    assert_close((found.mask * direction.numpy()).sum((1, 2, 3)), rise)


def test_entropy_gradients_through_layer_masking(tmp_path: Path) -> None:
    """No torch has layer masking: the file's own objective, differenced in float32."""
    torch.manual_seed(0)
    images, masks = draw()
    session = exported(Network("logits", gain=20.0), tmp_path, "logits")
    found = session.gradient(images, masks, target=0, loss="entropy", of=("image", "mask"))
    assert found.image is not None
    assert found.mask is not None
    for of, gradient in enumerate((found.image, found.mask)):
        direction = np.sign(gradient)  # the steepest: rounding of float32 is small beside it
        ends = []
        for sign in (1, -1):
            moved = [images, masks]
            moved[of] = moved[of] + np.float32(sign * SINGLE_STEP) * direction
            ends.append(session.gradient(*moved, target=0, loss="entropy").objective)
        slope = (ends[0] - ends[1]) / (2 * SINGLE_STEP)
        np.testing.assert_allclose(slope, np.abs(gradient).sum((1, 2, 3)), rtol=SINGLE_TOLERANCE)


def test_the_entropy_does_not_depend_on_the_target(tmp_path: Path) -> None:
    images, _ = draw()
    session = exported(Network("logits"), tmp_path, "logits")
    first = session.gradient(images, target=0, loss="entropy")
    for target in (3, [1, 2, 3]):
        found = session.gradient(images, target=target, loss="entropy")
        np.testing.assert_array_equal(found.image, first.image)
        np.testing.assert_array_equal(found.objective, first.objective)


def test_uniform_scores_have_the_largest_entropy(tmp_path: Path) -> None:
    images, _ = draw()
    for kind, largest in (("logits", np.log(4)), ("sigmoid", 4 * np.log(2)), ("binary", np.log(2))):
        network = Network(kind)
        nn.init.zeros_(network.linear.weight)
        nn.init.zeros_(network.linear.bias)
        found = exported(network, tmp_path, kind).gradient(images, target=0, loss="entropy")
        np.testing.assert_allclose(found.objective, largest, rtol=1e-6)


EXTREMES = [
    [0, 0, 0, 0],
    [200, 0, -200, 199],
    [1e30, -1e30, 0, 1],
    [np.inf, 0, 1, 2],
    [-np.inf, -np.inf, 0, 1],
    [20, 30, -25, 90],
    [15, -16, 17, -17.5],
]


@pytest.mark.parametrize("kind", ["logits", "sigmoid", "binary"])
def test_large_logits(kind: OutputKind, tmp_path: Path) -> None:
    """A probability of 0 adds nothing, whatever its logarithm."""
    rows = np.array(EXTREMES, np.float32)[:, None, None]
    if kind == "logits":
        rows = np.delete(rows, 3, axis=0)  # a softmax of +∞ is ∞ / ∞
    if kind == "binary":
        rows = rows[np.isfinite(rows).all((1, 2, 3))].reshape(-1, 1, 1, 1)
    path = tmp_path / "straight.onnx"
    masktool.export(as_graph(rows.shape[-1]), path, masking="fill", output_kind=kind, gradient="entropy")
    found = masktool.load(path).gradient(rows, target=0)
    logits = torch.tensor(rows.reshape(len(rows), -1), dtype=torch.float64).clamp(-1e4, 1e4).requires_grad_()
    objective = objective_in_torch("entropy", kind, logits, 0)
    (expected,) = torch.autograd.grad(objective.sum(), logits)
    assert found.image is not None
    np.testing.assert_allclose(found.objective, objective.detach(), rtol=1e-5, atol=RESOLVED)
    np.testing.assert_allclose(found.image.reshape(logits.shape), expected, rtol=1e-5, atol=RESOLVED)


def as_graph(classes: int) -> onnx.ModelProto:
    """A graph whose logits are its pixels."""
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
        straight (float[N, 1, 1, {classes}] image) => (float[N, {classes}] scores) {{ scores = Flatten(image) }}""")


def test_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network("logits", gain=5.0)
    images, _ = draw()
    single = exported(network, tmp_path, "logits").gradient(images, target=1, loss="entropy")
    half = exported(network.half(), tmp_path, "logits").gradient(images.astype(np.float16), target=1, loss="entropy")
    np.testing.assert_allclose(half.objective, single.objective, rtol=1e-2)
    np.testing.assert_allclose(half.image, single.image, rtol=0, atol=0.02 * np.abs(single.image).max())


# What a file knows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(classifier(), tmp_path / "small.onnx")
    masktool.export(tmp_path / "small.onnx", tmp_path / "masked.onnx", gradient="log-softmax")
    return tmp_path / "masked.onnx"


def test_a_file_says_what_it_knows(file: Path) -> None:
    metadata = masktool.load(file).metadata
    assert (metadata.gradient, metadata.losses, metadata.known_losses) == ("log-softmax", LOSSES, LOSSES)


def test_a_file_without_gradients_knows_no_loss(tmp_path: Path) -> None:
    metadata = masktool.export(classifier(), tmp_path / "masked.onnx").metadata
    assert (metadata.losses, metadata.known_losses) == (None, ())


def forget_losses(path: Path) -> None:
    """Makes the metadata those of a file that was written before losses were recorded."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != "masktool.losses"}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, path)


def test_an_older_file_refuses_the_entropy_and_keeps_its_losses(file: Path) -> None:
    images, _ = draw()
    before = {loss: masktool.load(file).gradient(images, target=1, loss=loss).image for loss in FIRST_LOSSES}
    forget_losses(file)
    session = masktool.load(file)
    assert session.metadata.known_losses == FIRST_LOSSES
    for loss, image in before.items():
        np.testing.assert_array_equal(session.gradient(images, target=1, loss=loss).image, image)
    with pytest.raises(MasktoolError) as error:
        session.gradient(images, target=1, loss="entropy")
    assert str(error.value) == (
        f"the file was written before there was this loss ({file}): expected logit | log-softmax | softmax, "
        'got entropy; export small.onnx again with gradient="entropy"'
    )
    with pytest.raises(MasktoolError, match=r"unknown loss: expected logit .* entropy, got cosine"):
        session.gradient(images, target=1, loss="cosine")


def test_an_index_beyond_the_losses_is_refused_by_the_file_itself(file: Path) -> None:
    session = onnxruntime.InferenceSession(file)
    images, masks = draw()
    feed = {"image": images, MASK_INPUT: masks, "target": np.zeros(1, np.int64)}
    session.run(["objective"], feed | {"loss": np.array(len(LOSSES) - 1)})
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(["objective"], feed | {"loss": np.array(len(LOSSES))})


def test_the_command_line_takes_the_entropy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert run(["export", "small.onnx", "-o", "entropy.onnx", "--gradient", "entropy"]) == 0
    images, _ = draw()
    session, other = masktool.load("entropy.onnx"), masktool.load(file)
    assert session.metadata.gradient == "entropy"
    expected = other.gradient(images, target=0, loss="entropy")
    np.testing.assert_array_equal(session.gradient(images, target=0).objective, expected.objective)
