"""Networks of different kinds, each explained by a method of masks and one of gradients, agree with Python."""

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import every_value
from networks.families import FAMILIES, HEAD
from networks.small_graphs import parse

import masktool
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings

SHARE = 1e-4
"""Of the range of Python's map; half precision has more."""
HALF_SHARE = 1e-2
NETWORKS = {name: FAMILIES[name] for name in ("squeeze and excitation", "concatenation", "attention")} | {
    "channels last": """
net (float[N, 12, 10, 3] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{
    first = Transpose<perm = [0, 3, 1, 2]>(image)
    features = Conv<pads = [1, 1, 1, 1]>(first, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "two outputs": """
net (float[N, 3, 12, 12] image) => (float[N, 6, 12, 12] features, float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "binary head": """
net (float[N, 3, 12, 12] image) => (float[N, 1] logits)
<float[6, 3, 3, 3] kernel, float[6, 1] weight, float[1] offset = {5}>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    score = Gemm(flat, weight)
    logits = Add(score, offset)
}
""",
    "fixed batch, images mixed": """
net (float[2, 3, 12, 12] image) => (float[2, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4] weight, int64[1] images = {0}>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    mean = ReduceMean(features, images)
    centred = Sub(features, mean)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    scores = Gemm(flat, weight)
    rest = GlobalAveragePool(centred)
    flat_rest = Flatten(rest)
    more = Gemm(flat_rest, weight)
    logits = Add(scores, more)
}
""",
}
OPTIONS = {
    "binary head": {"output_kind": "binary"},
    "fixed batch, images mixed": {"masking": "fill"},
}
METHODS = {"rise": {"n_masks": 20, "grid_size": 3}, "input-x-gradient": {}}


def compare(folder, network, image, method, export_options, share=SHARE):
    options = METHODS[method]
    path, masked = folder / "explained.onnx", folder / "masked.onnx"
    exported = masktool.export_explained(network, path, method, **options, **export_options)
    assert 0 <= exported.metadata.parity["explanation"] <= share
    masktool.export(network, masked, gradient="logit", **export_options)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    found = dict(zip(names, session.run(None, {session.get_inputs()[0].name: image[None]}), strict=True))
    with masktool.load(masked, "cpu") as reference:
        built = build_embedded_method(method, options)
        ((expected,),) = explain_all(reference, [image], [[None]], built, ExplanationSettings(perturbations_per_eval=1))
        outputs = reference.run(image[None])
    for name, values in outputs.items():
        assert np.abs(found[name] - values).max() <= share * np.abs(values).max()
    expected_map = expected.model_attributions
    assert np.ptp(expected_map) > 0
    assert np.abs(found["saliency_map"][0, 0] - expected_map).max() <= share * np.ptp(expected_map)


@every_value(method=METHODS, kind=NETWORKS)
def test_the_map_is_pythons(tmp_path, kind, method):
    network = parse(HEAD + NETWORKS[kind].strip())
    lengths = [dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim[1:]]
    image = np.random.default_rng(2).normal(size=lengths).astype(np.float32)
    options = {"output_kind": "logits", "class_output": "logits"} | OPTIONS.get(kind, {})
    compare(tmp_path, network, image, method, options)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(tmp_path, data_dir, method):
    image = np.random.default_rng(1).normal(size=(3, 224, 224)).astype(np.float16)
    compare(tmp_path, data_dir / "weights" / "squeezenet11_caffe2_fp16.onnx", image, method, {}, HALF_SHARE)


def test_a_quantised_network(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [
                {"image": each[None]} for each in np.random.default_rng(0).normal(size=(8, 3, 12, 12)).astype("f")
            ]

        def get_next(self):
            return self.left.pop() if self.left else None

    onnx.save(parse(HEAD + NETWORKS["concatenation"].strip()), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "quantised.onnx", Images(), quant_format=QuantFormat.QDQ)
    image = np.random.default_rng(1).normal(size=(3, 12, 12)).astype(np.float32)
    options = {"output_kind": "logits", "class_output": "logits"}
    path = tmp_path / "explained.onnx"
    exported = masktool.export_explained(tmp_path / "quantised.onnx", path, "rise", **METHODS["rise"], **options)
    assert 0 <= exported.metadata.parity["explanation"] <= SHARE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.ptp(session.run(["saliency_map"], {"image": image[None]})[0]) > 0
    with pytest.raises(masktool.UnsupportedOperatorError, match="QuantizeLinear"):
        masktool.export_explained(tmp_path / "quantised.onnx", path, "input-x-gradient", **options)
