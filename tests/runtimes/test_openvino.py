"""Portable files in OpenVINO: what ONNX Runtime and the explainers in Python give, it gives."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from combinations import every_value
from embedding.explained_files import NETWORK, images, write_explained
from networks.small_graphs import parse
from runtime.models import make_metadata

import masktool
from masktool.contract import FEATURE_MAP, GRADIENT_PREFIX, OBJECTIVE, SALIENCY_MAP
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.explainers.method import METHODS
from masktool.exporters.portable import make_portable

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed; the extra `dev` brings it")

SHARE = 1e-4
"""Largest difference from ONNX Runtime, as a share of the range of its values."""
REMAINDER = """
<ir_version: 10, opset_import: ["" : 20]>
remainder (int64[500] numbers) => (int64[500] rest)
<int64 divisor = {32363}>
{ rest = Mod(numbers, divisor) }
"""
SIZE = (12, 10)
SAMPLES = 6


def compile_model(path):
    """OpenVINO's CPU plugin computes in half precision on some processors unless it is told not to."""
    return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run_openvino(path, feed):
    compiled = compile_model(path)
    assert {name for node in compiled.inputs for name in node.get_names()} >= set(feed)
    results = compiled(feed)
    return {name: results[node] for node in compiled.outputs for name in node.get_names()}


def run_onnxruntime(path, feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


def assert_the_same(path, feed, share=SHARE):
    expected, found = run_onnxruntime(path, feed), run_openvino(path, feed)
    map_range = np.ptp(expected[SALIENCY_MAP]) if expected.get(SALIENCY_MAP, np.empty(0)).size else 0
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        if values.size:  # figures, one number each, are judged in units of the map
            scale = np.ptp(values) if values.size > 1 else max(np.abs(values).max(), map_range)
            assert np.abs(found[name] - values).max() <= share * scale, name
    return expected


def mask(rows=SIZE[0], columns=SIZE[1]):
    return (np.random.default_rng(1).random((1, 1, rows, columns)) < 0.6).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"masking": "partial"}, *({"masking": "fill", "baseline": each} for each in ("mean", "image-mean", "blur"))],
    ids=lambda options: "-".join(options.values()) or "layer",
)
def test_masked_files(tmp_path, options):
    path = tmp_path / "masked.onnx"
    masktool.export(parse(NETWORK), path, portable=True, **options)
    assert_the_same(path, {"image": images(), "mask": mask()})


@pytest.mark.parametrize("loss", ["logit", "entropy"])
def test_gradients(tmp_path, loss):
    """OpenVINO reads HardSigmoid's beta = 0 as 0.5: without the portable file's other beta every gradient is wrong."""
    path = tmp_path / "gradient.onnx"
    masktool.export(parse(NETWORK), path, portable=True, gradient=loss, output_kind="logits")
    found = assert_the_same(path, {"image": images(), "mask": mask(), "target": np.array([2])})
    assert set(found) >= {OBJECTIVE, FEATURE_MAP, *(GRADIENT_PREFIX + name for name in ("image", "mask", FEATURE_MAP))}


@every_value(method=sorted(EMBEDDED_METHODS), target=[-1, 2])
def test_explained_files(tmp_path, method, target):
    path = tmp_path / "explained.onnx"
    samples = SAMPLES if METHODS[method].samples_option else None
    write_explained(path, method, n_samples=samples, target="required", portable=True)
    assert_the_same(path, {"image": images(), "target": np.array([target])})


def test_remainders_of_large_numbers(tmp_path):
    """OpenVINO takes integers' remainders in float32; those of numbers from 2^24 on would be wrong."""
    model = ir.from_onnx_text(REMAINDER)
    make_portable(model, make_metadata())
    ir.save(model, tmp_path / "remainder.onnx")
    numbers = np.random.default_rng(0).integers(0, 2**30, 500)
    found = run_openvino(tmp_path / "remainder.onnx", {"numbers": numbers})
    assert np.array_equal(found["rest"], numbers % 32363)


def test_explained_in_chunks(tmp_path):
    path = tmp_path / "explained.onnx"
    write_explained(path, "occlusion", chunk=4, portable=True)
    assert_the_same(path, {"image": images()})


@pytest.mark.parametrize("wanted", [True, False])
def test_explained_on_request(tmp_path, wanted):
    path = tmp_path / "explained.onnx"
    write_explained(path, "occlusion", on_request="required", portable=True)
    assert_the_same(path, {"image": images(), "explain": np.array([wanted])})
