"""Maps of gradients in a file: the same as in Python with every option and for every kind of network."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from combinations import every_pair, every_value, quickly
from networks.small_graphs import parse

import masktool
from embedding.against_python import assert_same_as_python, explain_in_python, network, run
from embedding.explained_files import BATCH_MIXING, NETWORK, images
from masktool.contract import Preprocessing
from masktool.embedding.flow import INT64, Flow
from masktool.embedding.noise import emit_copies, emit_powers_along
from masktool.embedding.options import build_embedded_method
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.explainers.gaussian_noise import GaussianNoise

SIZE = (12, 10)
PREPROCESSING = Preprocessing(
    size=SIZE, resize="exact", channel_order="BGR", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)
)
CHANNELS_LAST = """
<ir_version: 10, opset_import: ["" : 20]>
last (float[N, 12, 10, 3] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6] bias, float[6, 4] weight>
{
    first = Transpose<perm = [0, 3, 1, 2]>(image)
    features = Conv<pads = [1, 1, 1, 1]>(first, kernel, bias)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
"""
METHODS = {
    "gradient": {},
    "input-x-gradient": {},
    "grad-cam": {},
    "layercam": {},
    "smoothgrad": {"n_samples": 5},
    "integrated-gradients": {"n_steps": 5},
}
NOT_DIFFERENTIABLE = NETWORK.replace("active = Relu(features)", "active = Floor(features)")


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return request.param


@every_value(
    baseline=["mean", "black", "grey", "image-mean", "blur", "noise", 40, "255,0,51"],
    layout=["NCHW", "NHWC"],
    rule=["gauss-legendre", "riemann"],
)
def test_integrated_gradients_with_every_baseline(tmp_path, layout, baseline, rule):
    preprocessing = {"preprocessing": PREPROCESSING.from_json({**vars(PREPROCESSING), "layout": layout})}
    source, batch = (parse(NETWORK), images(2)) if layout == "NCHW" else (parse(CHANNELS_LAST), nhwc(images(2)))
    options = {"baseline": baseline, "n_steps": 4, "rule": rule}
    found = assert_same_as_python(
        tmp_path, source, "integrated-gradients", batch, seed=3, chunk=2, of_export=preprocessing, **options
    )
    assert found["completeness_gap"].shape == (2,)


def nhwc(values):
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def test_the_map_and_the_gap_add_up_to_the_change(tmp_path):
    found = assert_same_as_python(tmp_path, parse(NETWORK), "integrated-gradients", images(1), n_steps=3)
    top = found["logits"].argmax()
    (baseline, *_) = run(tmp_path / "explained.onnx", image=np.zeros_like(images(1)))["logits"]
    change = found["logits"][0, top] - baseline[top]
    assert found["saliency_map"].sum() + found["completeness_gap"][0] == pytest.approx(change, rel=1e-4)


@every_pair(
    options=[{"noise_level": 0.5}, {"n_samples": 2}, {"n_samples": 11, "noise_level": 0.02}],
    chunk=[1, 4],
    size=[(12, 10), (9, 7)],
)
def test_smoothgrad_with_every_option(tmp_path, size, chunk, options):
    batch = np.random.default_rng(7).normal(size=(2, 3, *size)).astype(np.float32)
    options = {"n_samples": 7} | options
    found = assert_same_as_python(tmp_path, network(*size), "smoothgrad", batch, seed=2, chunk=chunk, **options)
    assert found["attributions_error"].min() > 0


def test_smoothgrad_draws_the_noise_of_python():
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="noise")
    flow, noise, copies = Flow(graph), GaussianNoise(5, 189), [0, 3, 60000]
    numbers = flow.typed(flow.constant(copies, INT64), INT64)
    flow.outputs_are([emit_copies(flow, noise, numbers, emit_powers_along(flow, noise))])
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    expected = np.concatenate([noise.copies(copy, 1) for copy in copies])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [{}, {"relu": False}, {"feature_map": "features"}, {"feature_map": "active"}])
def test_grad_cam_with_every_option(tmp_path, options):
    found = assert_same_as_python(tmp_path, network(27, 19), "grad-cam", large_images(), **options)
    assert (found["saliency_map"].min() < 0) is not options.get("relu", True)


@pytest.mark.parametrize(
    "options", [{}, {"feature_map": "features"}, {"feature_map": ["active", "early"]}, {"gamma": 0.5}]
)
def test_layercam_with_every_option(tmp_path, options):
    """Of one feature map and of several, of which those with more places are brought out."""
    options = {"feature_map": ["early", "features"], **options} if "gamma" in options else options
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    stages (float[N, 3, 27, 19] image) => (float[N, 4] logits)
    <float[5, 3, 3, 3] first, float[6, 5, 3, 3] second, float[6, 4] weight>
    {
        early = Conv<pads = [1, 1, 1, 1]>(image, first)
        kept = Relu(early)
        features = Conv<pads = [1, 1, 1, 1], strides = [3, 3]>(kept, second)
        active = Relu(features)
        pooled = GlobalAveragePool(active)
        flat = Flatten(pooled)
        logits = Gemm(flat, weight)
    }
    """
    found = assert_same_as_python(tmp_path, parse(text), "layercam", large_images(), **options)
    assert found["saliency_map"].min() >= 0
    if len(options.get("feature_map", "")) == 2:
        assert found["saliency_map"].max() == pytest.approx(1, abs=0.1)


def large_images():
    return np.random.default_rng(4).normal(size=(3, 3, 27, 19)).astype(np.float32)


def test_grad_cam_refuses_what_is_no_feature_map(tmp_path):
    with pytest.raises(MasktoolError, match=r"no such feature map \(nothing\).*features"):
        masktool.export_explained(parse(NETWORK), tmp_path / "x.onnx", "grad-cam", feature_map="nothing")
    flat = NETWORK.replace("features = Conv<pads = [1, 1, 1, 1]>(image, kernel)", "").replace("features", "image")
    flat = flat.replace("[6, 4] weight", "[3, 4] weight").replace("[N, 6, 12, 10]", "[N, 3, 12, 10]")
    with pytest.raises(MasktoolError, match="Grad-CAM needs a feature map"):
        masktool.export_explained(
            parse(flat.replace("active = Relu(image)", "active = Identity(image)")),
            tmp_path / "x.onnx",
            "grad-cam",
            masking="fill",
            output_kind="logits",
        )


def test_channels_last(tmp_path, method):
    assert_same_as_python(tmp_path, parse(CHANNELS_LAST), method, nhwc(images(2)), chunk=2, **METHODS[method])


@pytest.mark.parametrize(
    "kind", quickly(["binary", "probabilities"], ["binary", "binary-probability", "sigmoid", "probabilities"])
)
def test_every_kind_of_output(tmp_path, method, kind):
    """The weights speak for the later classes, of two for the second: the logit of the first is 0 by definition."""
    classes = 1 if kind.startswith("binary") else 4
    end = {"binary": "Identity", "probabilities": "Softmax"}.get(kind, "Sigmoid")
    text = (
        NETWORK.replace("4]", f"{classes}]")
        .replace("logits = Gemm", "z = Gemm")
        .replace("\n}", f" logits = {end}(z)\n}}")
    )
    of_export, weight = {"output_kind": kind}, np.linspace(0.1, 1, 6 * classes).reshape(6, classes)
    assert_same_as_python(
        tmp_path, parse(text, weight=weight), method, images(2), of_export=of_export, **METHODS[method]
    )


def test_one_image_at_a_time(tmp_path, method):
    found = assert_same_as_python(tmp_path, parse(BATCH_MIXING), method, images(1), chunk=3, **METHODS[method])
    assert found["saliency_map"].shape == (1, 1, *SIZE)


def test_networks_without_gradient_rules_are_refused_by_node(tmp_path, method):
    with pytest.raises(UnsupportedOperatorError, match="Floor"):
        masktool.export_explained(
            parse(NOT_DIFFERENTIABLE), tmp_path / "x.onnx", method, output_kind="logits", masking="fill"
        )


def test_integers_as_images_are_refused_with_another_method(tmp_path, method):
    integers = NETWORK.replace("float[N, 3, 12, 10] image", "uint8[N, 3, 12, 10] pixels").replace(
        "features =", "image = Cast<to = 1>(pixels) features ="
    )
    with pytest.raises(MasktoolError, match=r"integers.*take a method without gradients \(occlusion, rise\)"):
        masktool.export_explained(parse(integers), tmp_path / "x.onnx", method, output_kind="logits")


def test_outputs_with_names_of_gradients_are_refused(tmp_path, method):
    named = NETWORK.replace("logits)\n", "logits, float[N, 6, 12, 10] feature_map)\n").replace("active", "feature_map")
    with pytest.raises(MasktoolError, match=r"names that gradients add.*: feature_map; rename"):
        masktool.export_explained(
            parse(named), tmp_path / "x.onnx", method, output_kind="logits", class_output="logits"
        )


STEPS = {"smoothgrad": ("n_samples", {}), "integrated-gradients": ("n_steps", {"rule": "riemann"})}


@every_pair(method=sorted(STEPS), chunk=[1, 3], on_request=["always", "required"])
def test_the_number_of_steps_may_be_an_input(tmp_path, method, chunk, on_request):
    name, options = STEPS[method]
    masked, wanted = tmp_path / "masked.onnx", {} if on_request == "always" else {"explain": np.array([True])}
    masktool.export(parse(NETWORK), masked, gradient="logit", output_kind="logits")
    for kind in ("optional", "required"):
        path = tmp_path / f"{kind}.onnx"
        exported = masktool.export_explained(
            parse(NETWORK), path, method, chunk=chunk, samples_input=kind, on_request=on_request,
            output_kind="logits", **options, n_samples=4,
        )  # fmt: skip
        assert exported.metadata.explanation["samples_input"] == kind
        for count in (2, 9):
            found = run(path, image=images(2), **{name: np.array([count])}, **wanted)
            for position, image in enumerate(images(2)):
                built = build_embedded_method(method, {**options, name: count})
                expected = explain_in_python(masked, built, image)
                difference = np.abs(found["saliency_map"][position, 0] - expected.model_attributions).max()
                assert difference <= 1e-4 * np.ptp(expected.model_attributions)
    left_out = run(tmp_path / "optional.onnx", image=images(1), **wanted)["saliency_map"]
    named = run(tmp_path / "required.onnx", image=images(1), **{name: np.array([4])}, **wanted)["saliency_map"]
    assert np.array_equal(left_out, named)


@pytest.mark.parametrize(("method", "fewest"), [("smoothgrad", 2), ("integrated-gradients", 1)])
def test_too_few_steps_count_as_the_fewest(tmp_path, method, fewest):
    name, options = STEPS[method]
    path = tmp_path / "x.onnx"
    masktool.export_explained(parse(NETWORK), path, method, samples_input="required", output_kind="logits", **options)
    found = [run(path, image=images(1), **{name: np.array([n])})["saliency_map"] for n in (-3, 0, fewest)]
    assert np.isfinite(found[0]).all()
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[2])


@pytest.mark.parametrize(
    ("method", "message"), [("integrated-gradients", "set rule=riemann"), ("occlusion", "settled at export")]
)
def test_what_is_settled_at_export_is_no_input(tmp_path, method, message):
    with pytest.raises(MasktoolError, match=message):
        masktool.export_explained(
            parse(NETWORK), tmp_path / "x.onnx", method, samples_input="optional", output_kind="logits"
        )


def half_network():
    """Returns the network in float16, with one weight that is computed from another."""
    text = NETWORK.replace("float", "float16").replace("Gemm(flat, weight)", "Gemm(flat, turned)").replace(
        "flat =", "turned = Identity(weight) flat ="
    )  # fmt: skip
    return parse(text)


def test_sixteen_bits_are_computed_in_float32(tmp_path, method):
    path, batch = tmp_path / "half.onnx", images(2).astype(np.float16)
    exported = masktool.export_explained(half_network(), path, method, output_kind="logits", chunk=2, **METHODS[method])
    assert exported.metadata.parity["explanation"] <= 1e-2
    found = run(path, image=batch)
    assert found["logits"].dtype == np.float16
    assert found["saliency_map"].dtype == np.float32
    plain = onnxruntime.InferenceSession(half_network().SerializeToString()).run(None, {"image": batch})[0]
    assert np.abs(found["logits"] - plain).max() <= 1e-2 * np.abs(plain).max()
    single, masked = parse(NETWORK), tmp_path / "masked.onnx"
    for weight, half in zip(single.graph.initializer, half_network().graph.initializer, strict=True):
        values = onnx.numpy_helper.to_array(half).astype(np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    masktool.export(single, masked, gradient="logit", output_kind="logits")
    for position, image in enumerate(batch.astype(np.float32)):
        expected = explain_in_python(masked, build_embedded_method(method, METHODS[method]), image)
        difference = np.abs(found["saliency_map"][position, 0] - expected.model_attributions).max()
        share = 5e-2 if method == "smoothgrad" else 5e-3  # what is added to the image is rounded to 16 bits
        assert difference <= share * np.ptp(expected.model_attributions)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["input-x-gradient", "grad-cam"])
def test_a_trained_network_of_sixteen_bits(tmp_path, data_dir, method):
    source = data_dir / "weights" / "squeezenet11_caffe2_fp16.onnx"
    exported = masktool.export_explained(source, tmp_path / "x.onnx", method)
    assert exported.metadata.parity["explanation"] <= 2e-3
    assert exported.n_bytes <= source.stat().st_size + 120_000
