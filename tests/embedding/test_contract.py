"""What the graph of every embedded method must do; one that is added is tried here without a line more."""

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool
from masktool.contract import Metadata
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import METHODS

SIZE = (12, 10)
SAMPLES = 6
NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
all (float[N, 3, 12, 10] image) => (float[N, 4] logits, float[N, 6, 12, 10] active)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
"""
"""Its second output tells whether outputs besides the scores stay the model's own, row by row."""
SHARE = 1e-4
"""Of the range of Python's map, between the two maps."""
ROUNDING = 1e-5
"""Of the largest value of an output: fused otherwise, sums are in another order."""


@pytest.fixture(params=sorted(EMBEDDED_METHODS))
def method(request):
    return request.param


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(3, 3, *SIZE)).astype(np.float32)


def export_to(path, method, **options):
    samples = SAMPLES if METHODS[method].samples_option else None
    return masktool.export_explained(
        parse(NETWORK), path, method, n_samples=samples, output_kind="logits", class_output="logits", **options
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exports on demand, each once: gives the path of a method's file with some options, and its metadata."""
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def get(method, **options):
        path = folder / "_".join([method, *map(str, options.values()), "file.onnx"])
        return path, export_to(path, method, **options).metadata

    return get


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """The network with a mask and gradients, by which the explainers in Python explain."""
    path = tmp_path_factory.mktemp("masked") / "masked.onnx"
    masktool.export(parse(NETWORK), path, gradient="logit", output_kind="logits", class_output="logits")
    return path


def run(path, **feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


def plain(images):
    session = onnxruntime.InferenceSession(parse(NETWORK).SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(["logits", "active"], session.run(None, {"image": images}), strict=True))


def explained_in_python(masked, method, image, target):
    samples = SAMPLES if METHODS[method].samples_option else None
    built = build_embedded_method(method, {}, samples)
    with masktool.load(masked, "cpu") as session:
        ((found,),) = explain_all(session, [image], [[target]], built, ExplanationSettings(perturbations_per_eval=1))
    return found


def assert_agrees(masked, method, images, found, targets):
    for position, (image, target) in enumerate(zip(images, targets, strict=True)):
        expected = explained_in_python(masked, method, image, target)
        own = found["saliency_map"][position, 0]
        assert np.abs(own - expected.model_attributions).max() <= SHARE * np.ptp(expected.model_attributions)
        for name in set(found) & set(expected.quality):
            reference = max(abs(expected.quality[name]), SHARE * np.ptp(expected.model_attributions))
            assert abs(found[name][position] - expected.quality[name]) <= 1e-2 * reference, name


def test_the_map_is_the_one_that_python_gives(files, masked, method, images):
    path, metadata = files(method)
    assert 0 <= metadata.parity["explanation"] <= SHARE
    found = run(path, image=images)
    assert found["saliency_map"].shape == (len(images), 1, *SIZE)
    assert found["saliency_map"].dtype == np.float32
    assert np.ptp(found["saliency_map"]) > 0
    assert_agrees(masked, method, images, found, [None] * len(images))


def test_the_models_own_outputs_stay(files, method, images):
    path, _ = files(method)
    found, expected = run(path, image=images), plain(images)
    assert list(found)[: len(expected)] == list(expected)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= ROUNDING * np.abs(values).max()


@pytest.mark.parametrize("chunk", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_several_masks_in_one_pass_change_nothing(files, method, images, chunk):
    alone, _ = files(method)
    expected = run(alone, image=images[:1])["saliency_map"]
    together, _ = files(method, chunk=chunk)
    found = run(together, image=images[:1])["saliency_map"]
    assert np.abs(found - expected).max() <= SHARE * np.ptp(expected)


def test_a_target_may_be_asked_for(files, masked, method, images):
    path, _ = files(method, target="required")
    classes = [2, -1, 0]
    found = run(path, image=images, target=np.array(classes))
    assert_agrees(masked, method, images, found, [2, None, 0])
    same = run(path, image=images, target=np.array([2]))
    assert np.array_equal(same["saliency_map"][0], found["saliency_map"][0])


def test_it_explains_on_request_alone(files, method, images):
    always, _ = files(method)
    path, _ = files(method, on_request="required")
    wanted = run(path, image=images, explain=np.array([True]))
    unwanted = run(path, image=images, explain=np.array([False]))
    expected = run(always, image=images)["saliency_map"]
    assert np.abs(wanted["saliency_map"] - expected).max() <= SHARE * np.ptp(expected)
    assert unwanted["saliency_map"].shape == (0, 1, *SIZE)
    for name, values in plain(images).items():
        assert np.array_equal(unwanted[name], values)


def test_optional_inputs_may_be_left_out(files, method, images):
    path, _ = files(method, target="optional", on_request="optional")
    always, _ = files(method)
    found, expected = (run(each, image=images[:1])["saliency_map"] for each in (path, always))
    assert np.abs(found - expected).max() <= SHARE * np.ptp(expected)


def test_the_file_is_standard_onnx(files, method):
    path, _ = files(method)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert {each.domain for each in model.opset_import} <= {"", "masktool"}
    assert {node.domain for function in model.functions for node in function.node} <= {""}


def test_the_file_says_what_is_embedded(files, method):
    path, written = files(method, seed=4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = Metadata.from_properties(session.get_modelmeta().custom_metadata_map)
    assert metadata == written
    assert metadata.explanation["method"] == method
    assert metadata.explanation["seed"] == 4


def test_the_same_seed_gives_the_same_bytes(files, tmp_path, method):
    first, _ = files(method, seed=4)
    export_to(tmp_path / first.name, method, seed=4)
    assert first.read_bytes() == (tmp_path / first.name).read_bytes()
