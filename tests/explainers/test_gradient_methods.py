"""Methods that ask for gradients: exact on a linear network, and the same as Captum's on real ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from networks.small_graphs import classifier, parse
from PIL import Image

import masktool
from masktool import MasktoolError, demo, explain, explain_targets, load
from masktool.contract import Metadata, Preprocessing
from masktool.explainers.gaussian_noise import GaussianNoise
from masktool.explainers.method import METHODS
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.methods.integrated_gradients import step_rule
from masktool.explainers.methods.smoothgrad import noise_deviation
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target_gradient import check_differentiable
from masktool.explainers.targets.output_value import OutputValue

LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
linear (float[N, 3, 6, 8] image) => (float[N, 4] scores)
<float[144, 4] weight, float[4] bias, float[3, 3, 1, 1] identity>
{
    [same] copy = Conv(image, identity)
    [flatten] flat = Flatten(copy)
    [classify] scores = Gemm(flat, weight, bias)
}
"""
SIZE = (6, 8)
BIAS = np.array([0, 2, -1, 0.5])
PREPROCESSING = Preprocessing(size=SIZE, resize="exact", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
GRADIENT_METHODS = [
    "attribution-mask", "grad-cam", "gradient", "input-x-gradient", "integrated-gradients", "layercam", "smoothgrad"
]  # fmt: skip
SAME = 1e-4
"""Relative to the largest value: what the order of sums leaves in single precision on 20 layers, with room."""
KINK = 0.05
"""What one step of twenty on the other side of a ReLU's kink may change: at most its share of the sum."""


@pytest.fixture(scope="module", params=["layer", "fill"])
def linear(request, tmp_path_factory):
    """A linear network, the image that it takes and its weights (4, 3, 6, 8)."""
    path = tmp_path_factory.mktemp("linear") / "linear.onnx"
    model = parse(LINEAR, bias=BIAS, identity=np.eye(3))
    masktool.export(
        model, path, masking=request.param, gradient="logit", preprocessing=PREPROCESSING, output_kind="logits"
    )
    weight = np.random.default_rng(0).standard_normal((144, 4)).astype(np.float32)  # as `parse` draws it
    with load(path, "cpu", threads=1) as session:
        yield session, weight.T.reshape(4, 3, *SIZE)


@pytest.fixture
def image():
    return np.random.default_rng(5).normal(size=(3, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    path = tmp_path_factory.mktemp("convolutional") / "model.onnx"
    masktool.export(classifier(), path, gradient="logit", output_kind="logits")
    with load(path, "cpu", threads=1) as session:
        yield session


def test_gradient_is_the_weights(linear, image):
    session, weight = linear
    found = explain_targets(session, image, [2, 0], "gradient")
    for explanation, target in zip(found, (2, 0), strict=True):
        np.testing.assert_allclose(explanation.attributions, np.abs(weight[target]).max(axis=0), rtol=1e-6)
    assert "completeness_gap" not in found[0].quality


def test_input_x_gradient_sums_to_the_logit_but_for_the_bias(linear, image):
    session, weight = linear
    for target in range(4):
        found = explain(session, image, "input-x-gradient", target)
        np.testing.assert_allclose(found.attributions, (weight[target] * image).sum(axis=0), rtol=1e-5, atol=1e-6)
        assert found.quality["completeness_gap"] == pytest.approx(BIAS[target], abs=1e-4)
        logit = float(session(image[None])[0, target])
        assert found.quality["completeness_total"] == pytest.approx(logit, rel=1e-6)


@pytest.mark.parametrize("rule", ["gauss-legendre", "riemann"])
@pytest.mark.parametrize(
    ("baseline", "pixel"), [("mean", None), ("black", (0, 0, 0)), ("grey", (127.5,) * 3), ("255,0,51", (255, 0, 51))]
)
def test_integrated_gradients_sum_to_the_change_from_the_baseline(linear, rule, baseline, pixel):
    """A bias cancels, and on a linear network one step is enough."""
    session, weight = linear
    photograph = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    found = explain(session, photograph, "integrated-gradients", 1, baseline=baseline, n_steps=1, rule=rule)
    mean, std = (np.array(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
    image = (photograph.transpose(2, 0, 1) / 255 - mean) / std
    start = 0 if pixel is None else (np.array(pixel)[:, None, None] / 255 - mean) / std
    expected = weight[1] * (image - start)
    np.testing.assert_allclose(found.attributions, expected.sum(axis=0), rtol=1e-4, atol=1e-5)
    assert found.quality["completeness_total"] == pytest.approx(expected.sum(), rel=1e-4)
    assert abs(found.quality["completeness_gap"]) < 1e-4
    assert found.notes == ()


@pytest.mark.parametrize("baseline", ["image-mean", "blur", "noise", 40])
def test_integrated_gradients_close_the_gap_whatever_the_baseline(convolutional, baseline):
    image = np.random.default_rng(2).random((3, 8, 8)).astype(np.float32)
    if baseline in ("noise", 40):
        with pytest.raises(MasktoolError, match=r"needs to know how pixels become the input.*take the baseline mean"):
            explain(convolutional, image, "integrated-gradients", baseline=baseline)
        return
    found = explain(convolutional, image, "integrated-gradients", baseline=baseline, n_steps=200)
    assert abs(found.quality["completeness_gap"]) < 1e-3 * np.abs(found.attributions).sum()


def test_a_noise_baseline_comes_from_the_seed(linear):
    session, _ = linear
    photograph = np.zeros((*SIZE, 3), np.uint8)
    first, same, other = (
        explain(session, photograph, "integrated-gradients", 0, baseline="noise", n_steps=1, seed=seed).attributions
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.1


def test_too_few_steps_are_told(convolutional):
    image = np.random.default_rng(3).normal(size=(3, 8, 8)).astype(np.float32)
    coarse = explain(convolutional, image, "integrated-gradients", n_samples=1)
    fine = explain(convolutional, image, "integrated-gradients", n_samples=300)
    assert abs(fine.quality["completeness_gap"]) < abs(coarse.quality["completeness_gap"])
    assert fine.notes == ()
    assert "raise n_steps (now 1)" in coarse.notes[0]


def test_smoothgrad_of_a_linear_network_is_its_gradient(linear, image):
    session, weight = linear
    found = explain(session, image, "smoothgrad", 3, n_samples=7)
    np.testing.assert_allclose(found.attributions, np.abs(weight[3]).max(axis=0), rtol=1e-5)
    assert found.quality["attributions_error"] < 1e-3 * found.quality["attributions_range"]


def test_smoothgrad_noise_is_a_share_of_the_range_and_does_not_depend_on_the_batch(convolutional, image):
    image = np.linspace(-2, 3, 192, dtype=np.float32).reshape(3, 8, 8)
    noise = GaussianNoise(0, image.size).copies(0, 400) * noise_deviation(image, 0.1)
    assert noise.std() == pytest.approx(0.1 * 5, rel=0.01)
    batches = [
        explain(convolutional, image, "smoothgrad", n_samples=10, perturbations_per_eval=size) for size in (3, 10)
    ]
    np.testing.assert_allclose(batches[0].attributions, batches[1].attributions, rtol=1e-4)
    other = explain(convolutional, image, "smoothgrad", n_samples=10, seed=1)
    assert np.abs(other.attributions - batches[0].attributions).max() > 1e-4


def test_smoothgrad_error_is_what_other_seeds_differ_by(convolutional):
    image = np.random.default_rng(4).normal(size=(3, 8, 8)).astype(np.float32)
    runs = [explain(convolutional, image, "smoothgrad", 0, n_samples=40, noise_level=0.3, seed=s) for s in range(30)]
    spread = np.sqrt(np.stack([run.attributions for run in runs]).var(axis=0, ddof=1).mean())
    told = np.mean([run.quality["attributions_error"] for run in runs])
    assert spread == pytest.approx(told, rel=0.25)


def test_grad_cam_is_the_weighted_feature_map(convolutional):
    """Behind a global mean, d f_y / d A_k is weight[k, y] / places, everywhere."""
    image = np.random.default_rng(6).normal(size=(3, 8, 8)).astype(np.float32)
    features = convolutional.gradient(image[None], target=0, of=("feature_map",)).feature_map
    assert features.shape == (1, 6, 8, 8)
    drawn = np.random.default_rng(0)  # as `parse` draws them
    *_, weight = (drawn.standard_normal(shape) for shape in [(6, 3, 3, 3), (6,), (6, 4)])
    for target in (0, 3):
        expected = np.einsum("c,chw->hw", weight[:, target] / 64, features[0])
        signed = explain(convolutional, image, "grad-cam", target, relu=False)
        np.testing.assert_allclose(signed.attributions, expected, rtol=1e-4, atol=1e-6)
        published = explain(convolutional, image, "grad-cam", target)
        np.testing.assert_allclose(published.attributions, np.maximum(expected, 0), rtol=1e-4, atol=1e-6)
    assert published.settings["feature_map"] == convolutional.metadata.feature_map


def test_grad_cam_is_enlarged_bilinearly():
    torch = pytest.importorskip("torch")
    coarse = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None, None], (13, 10), mode="bilinear")
    np.testing.assert_allclose(enlarge(coarse, (13, 10)), expected[0, 0].numpy(), atol=1e-6)


def test_any_feature_map_by_name(tmp_path):
    masktool.export(classifier(), tmp_path / "m.onnx", gradient="logit", feature_map="features", output_kind="logits")
    image = np.random.default_rng(6).normal(size=(3, 8, 8)).astype(np.float32)
    with load(tmp_path / "m.onnx", "cpu", threads=1) as session:
        found = explain(session, image, "grad-cam", feature_map="features")
        assert found.settings["feature_map"] == "features"
        with pytest.raises(
            MasktoolError, match=r"another feature map \(active\).*gradient=.logit., feature_map=.active."
        ):
            explain(session, image, "grad-cam", feature_map="active")


def test_grad_cam_needs_a_feature_map(tmp_path, image):
    model = parse(LINEAR.replace("[same] copy = Conv(image, identity)", "").replace("copy", "image"))
    masktool.export(model, tmp_path / "m.onnx", masking="fill", gradient="logit", output_kind="logits")
    with (
        load(tmp_path / "m.onnx", "cpu", threads=1) as session,
        pytest.raises(MasktoolError, match=r"needs a feature map \(1, c, h, w\), and the network has none"),
    ):
        explain(session, image, "grad-cam")


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_nhwc(tmp_path, method):
    """The same network with channels last gives the same map."""
    last = parse("""
<ir_version: 10, opset_import: ["" : 20]>
last (float[N, 8, 8, 3] image) => (float[N, 4] scores)
<float[6, 3, 3, 3] kernel, float[6] bias, float[6, 4] weight>
{
    [turn] first = Transpose<perm = [0, 3, 1, 2]>(image)
    [convolve] features = Conv<pads = [1, 1, 1, 1]>(first, kernel, bias)
    [activate] active = Relu(features)
    [pool] pooled = GlobalAveragePool(active)
    [flatten] flat = Flatten(pooled)
    [classify] scores = Gemm(flat, weight)
}
""")
    image = np.random.default_rng(8).normal(size=(3, 8, 8)).astype(np.float32)
    maps = []
    for name, model, values in (("first", classifier(), image), ("last", last, image.transpose(1, 2, 0))):
        masktool.export(model, tmp_path / f"{name}.onnx", gradient="logit", output_kind="logits")
        with load(tmp_path / f"{name}.onnx", "cpu", threads=1) as session:
            options = {"noise_level": 1e-3, "n_samples": 300} if method == "smoothgrad" else {}
            maps.append(explain(session, values, method, 1, **options).attributions)
    tolerance = 0.05 if method == "smoothgrad" else 1e-4  # its noise differs from pixel to pixel
    np.testing.assert_allclose(maps[1], maps[0], atol=tolerance * np.abs(maps[0]).max())


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_a_file_without_gradients_names_what_adds_them(session, method):
    with pytest.raises(
        MasktoolError,
        match=r"needs gradients.*masktool\.add_gradients_to\(.\S*regions\.onnx., .NEW\.onnx., loss=.logit.\)",
    ) as error:
        explain(session, np.zeros((16, 24, 3), np.uint8), method)
    assert "\n" not in str(error.value)


def test_a_value_of_the_class_output_has_the_gradient_of_its_class(linear, image):
    found = explain(linear[0], image, "gradient", 0, output="scores")
    same = explain(linear[0], image, "gradient", 0)
    np.testing.assert_array_equal(found.attributions, same.attributions)
    assert found.score_name == "value"


@pytest.mark.parametrize("output", ["y", "boxes"])
def test_values_that_are_no_logits_have_no_gradient(output):
    metadata = Metadata(
        masking="layer", source="m", source_sha256="0" * 64, image_input="x", class_output="y",
        output_kind="probabilities", preprocessing=None, labels=None, parity={}, tool_version="1",
    )  # fmt: skip
    outputs = ModelOutputs(metadata, {output: np.zeros((1, 3), np.float32)})
    settled = OutputValue(output, (1,)).settle(outputs)
    metadata = dataclasses.replace(metadata, gradient="logit")
    expected = rf"Gradient needs gradients of output '{output}', and the file holds those of class scores"
    with pytest.raises(MasktoolError, match=expected):
        check_differentiable("Gradient", settled, metadata, Path("m.onnx"))
    check_differentiable("Gradient", settled, dataclasses.replace(metadata, gradient_output=output), Path("m.onnx"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("smoothgrad", {"n_samples": 1}), ("smoothgrad", {"noise_level": 0}), ("integrated-gradients", {"n_steps": 0}),
        ("integrated-gradients", {"baseline": "pink"}), ("integrated-gradients", {"baseline": "300,0,0"}),
        ("integrated-gradients", {"rule": "simpson"}), ("attribution-mask", {"rule": "guided"}),
        ("attribution-mask", {"n_iterations": 0}),
    ],
)  # fmt: skip
def test_bad_options_are_named(linear, image, method, options):
    with pytest.raises(MasktoolError, match=next(iter(options))):
        explain(linear[0], image, method, **options)


def test_steps_integrate_polynomials():
    for rule, degree, tolerance in (("gauss-legendre", 9, 1e-6), ("riemann", 1, 1e-6)):
        places, weights = step_rule(rule, 5)
        assert (places.astype(float) ** degree) @ weights == pytest.approx(1 / (degree + 1), rel=tolerance)


def test_every_document_has_notes_and_the_gap_where_one_is_defined(linear, image):
    for method in ("gradient", "input-x-gradient", "integrated-gradients", "attribution-mask"):
        document = json.loads(explain(linear[0], image, method).to_json())
        assert isinstance(document["notes"], list)
        assert ("completeness_gap" in document["quality"]) is (method != "gradient")
    assert METHODS["gradient"].needs_gradient


# Against Captum, on trained weights and real pictures.


@pytest.fixture(scope="module")
def demo_network(tmp_path_factory):
    """The demo's network in torch, its last block, the exported file and a prepared picture (1, 3, 64, 64)."""
    torch = pytest.importorskip("torch")
    from shapes_network import ShapesNetwork

    from masktool.demo import shapes

    network = ShapesNetwork(len(shapes.LABELS)).eval()
    network.load_state_dict(torch.export.load(demo.program_path()).state_dict)
    path = tmp_path_factory.mktemp("demo") / "shapes.onnx"
    masktool.export(demo.program_path(), path, gradient="logit", output_kind="logits")
    with Image.open(demo.sample_path()) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((shapes.SIZE, shapes.SIZE))) / 255
    image = ((pixels - shapes.MEAN) / shapes.STD).transpose(2, 0, 1)[None].astype(np.float32)
    with load(path, "cpu", threads=1) as session:
        yield network, network.blocks[2], session, image


@pytest.fixture(scope="module")
def cifar_network(tmp_path_factory, data_dir):
    """ResNet-20 as trained on CIFAR-10, its last stage, the exported file and a photograph (1, 3, 32, 32)."""
    torch = pytest.importorskip("torch")
    from networks.cifar_resnet import resnet20

    weights = torch.load(data_dir / "weights" / "cifar_resnet20.th", map_location="cpu", weights_only=True)
    network = resnet20().eval()
    network.load_state_dict({name.removeprefix("module."): value for name, value in weights["state_dict"].items()})
    path = tmp_path_factory.mktemp("cifar") / "resnet20.onnx"
    masktool.export(network, path, input_size=(32, 32), gradient="logit", output_kind="logits")
    photograph = sorted((data_dir / "images").glob("*.jpg"))[6]
    with Image.open(photograph) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((32, 32))) / 255
    image = ((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None].astype(np.float32)
    with load(path, "cpu", threads=1) as session:
        yield network, network.layer3, session, image


@pytest.fixture(params=["demo_network", "cifar_network"])
def trained(request):
    return request.getfixturevalue(request.param)


def assert_same(found, expected):
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() <= SAME * np.abs(expected).max()


def test_captum_saliency(trained):
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    network, _, session, image = trained
    for target in (0, 4):
        expected = attr.Saliency(network).attribute(torch.from_numpy(image), target=target)
        assert_same(explain(session, image[0], "gradient", target).attributions, expected[0].amax(0).numpy())


def test_captum_input_x_gradient(trained):
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    network, _, session, image = trained
    expected = attr.InputXGradient(network).attribute(torch.from_numpy(image), target=3).detach()
    assert_same(explain(session, image[0], "input-x-gradient", 3).attributions, expected[0].sum(0).numpy())


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("gauss-legendre", "gausslegendre"),
        pytest.param("riemann", "riemann_middle", marks=pytest.mark.slow),  # differs in 20 numbers from the other
    ],
)
def test_captum_integrated_gradients(trained, rule, theirs):
    """Where a step falls on the kink of a ReLU, rounding decides on which side; so a median of seven images counts.

    Noise tells them apart: in a picture that is merely moved, a flat background meets the same kink seven times.
    """
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    network, _, session, image = trained
    method, errors = attr.IntegratedGradients(network), []
    for seed in range(7):
        noisy = image + np.random.default_rng(seed).normal(0, 0.1, image.shape).astype(np.float32)
        expected, delta = method.attribute(
            torch.from_numpy(noisy), target=4, n_steps=20, method=theirs, return_convergence_delta=True
        )
        summed = expected[0].sum(0).detach().numpy()
        found = explain(session, noisy[0], "integrated-gradients", 4, n_steps=20, rule=rule)
        errors.append(np.abs(found.attributions - summed).max() / np.abs(summed).max())
        magnitude = np.abs(summed).sum()
        assert found.quality["completeness_gap"] == pytest.approx(-float(delta), abs=0.01 * float(magnitude))
    assert np.median(errors) <= SAME
    assert max(errors) <= KINK


def test_captum_smoothgrad(trained, monkeypatch):
    """With our noise in place of torch's; as above, a median counts, of seven seeds."""
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    network, _, session, image = trained
    method, errors = attr.NoiseTunnel(attr.Saliency(network)), []
    for seed in range(7):
        noise = GaussianNoise(seed, image.size).copies(0, 12) * noise_deviation(image, 0.1)
        monkeypatch.setattr(torch, "normal", lambda _, like, drawn=noise: torch.from_numpy(drawn).reshape(like.shape))
        expected = method.attribute(
            torch.from_numpy(image), target=4, nt_type="smoothgrad", nt_samples=12, stdevs=1.0, abs=False
        )
        largest = expected[0].abs().amax(0).detach().numpy()
        found = explain(session, image[0], "smoothgrad", 4, n_samples=12, noise_level=0.1, seed=seed)
        errors.append(np.abs(found.attributions - largest).max() / largest.max())
    assert np.median(errors) <= SAME
    assert max(errors) <= KINK


def test_captum_grad_cam(trained):
    attr = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    network, layer, session, image = trained
    coarse = attr.LayerGradCam(network, layer).attribute(torch.from_numpy(image), target=4, relu_attributions=True)
    size = image.shape[2:]
    expected = attr.LayerAttribution.interpolate(coarse.detach(), size, interpolate_mode="bilinear")
    assert_same(explain(session, image[0], "grad-cam", 4).attributions, expected[0, 0].numpy())
