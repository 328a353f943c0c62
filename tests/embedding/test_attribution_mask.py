"""Attribution mask in a file: every rule, any number of multiplications, what it says of the class."""

import numpy as np
import pytest
from networks.small_graphs import parse

import masktool
from embedding.against_python import assert_same, assert_same_as_python, explain_in_python, network, run
from masktool.explainers.methods.attribution_mask import RULES, AttributionMask

SIZE = (20, 16)
BINARY = """
<ir_version: 10, opset_import: ["" : 20]>
binary (float[N, 3, 20, 16] image) => (float[N, 1] score)
<float[6, 3, 3, 3] kernel, float[6, 1] weight, float[1] bias>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    LAST
}
"""
ENDS = {
    "binary": "score = Gemm(flat, weight, bias)",
    "binary-probability": "logit = Gemm(flat, weight, bias) score = Sigmoid(logit)",
}


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_the_map_of_python(tmp_path, images, rule):
    assert_same_as_python(tmp_path, network(*SIZE), "attribution-mask", images, rule=rule, n_steps=5)


@pytest.mark.parametrize("chunk", [2, 3, 8])
def test_several_steps_of_an_integral_in_one_pass(tmp_path, images, chunk):
    options = {"rule": "integrated-gradients", "n_steps": 5, "n_iterations": 2}
    assert_same_as_python(tmp_path, network(*SIZE), "attribution-mask", images, chunk=chunk, **options)


@pytest.mark.parametrize(("rule", "kind"), [("gxsi", "optional"), ("integrated-gradients", "required")])
def test_the_number_of_multiplications_may_be_an_input(tmp_path, images, rule, kind):
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    options = {"rule": rule, "n_steps": 3, "chunk": 2, "samples_input": kind}
    masktool.export_explained(network(*SIZE), path, "attribution-mask", output_kind="logits", **options)
    masktool.export(network(*SIZE), masked, output_kind="logits", gradient="logit")
    for number in (1, 5):
        method = AttributionMask(n_iterations=number, rule=rule, n_steps=3)
        found = run(path, image=images, n_iterations=np.array([number]))
        for position, image in enumerate(images):
            assert_same(found, position, explain_in_python(masked, method, image))
    least = run(path, image=images, n_iterations=np.array([0]))
    assert np.array_equal(least["saliency_map"], run(path, image=images, n_iterations=np.array([1]))["saliency_map"])


def test_it_tells_whether_the_class_stays_on_top(tmp_path, images):
    path = tmp_path / "explained.onnx"
    masktool.export_explained(network(*SIZE), path, "attribution-mask", output_kind="logits", target="required")
    found = [run(path, image=images[:1], target=np.array([target])) for target in range(4)]
    top = int(found[0]["logits"].argmax())
    assert {round(float(each["kept_soft"][0])) for each in found} == {0, 1}
    assert found[top]["kept_soft"][0] == 1


@pytest.mark.parametrize("kind", ENDS)
def test_a_binary_head(tmp_path, images, kind):
    source = parse(BINARY.replace("LAST", ENDS[kind]), bias=[3.0])
    of_export = {"output_kind": kind}
    found = assert_same_as_python(tmp_path, source, "attribution-mask", images, of_export=of_export, n_iterations=1)
    assert np.ptp(found["saliency_map"]) > 0.5


@pytest.mark.parametrize("kind", ENDS)
def test_a_class_that_a_binary_head_does_not_predict_is_not_on_top(tmp_path, images, kind):
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    source = parse(BINARY.replace("LAST", ENDS[kind]), bias=[-9.0])
    masktool.export_explained(source, path, "attribution-mask", output_kind=kind, target="required")
    masktool.export(source, masked, output_kind=kind, gradient="logit")
    for target in (0, 1):
        found = run(path, image=images[:1], target=np.array([target]))
        expected = explain_in_python(masked, AttributionMask(), images[0], target=target)
        assert found["kept_soft"][0] == expected.quality["kept_soft"] == (target == 0)
        assert np.abs(found["saliency_map"][0, 0] - expected.model_attributions).max() <= 1e-4


@pytest.mark.slow
def test_channels_last(tmp_path, data_dir):
    images = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    source = data_dir / "weights" / "mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx"
    assert_same_as_python(tmp_path, source, "attribution-mask", images, of_export={"output_kind": "probabilities"})
