"""What every registered method must do; one that is added is tried here without a line more."""

import dataclasses
import json

import numpy as np
import pytest
from networks.small_graphs import parse

import masktool
from explainers.models import noise_photograph
from masktool import explain, explain_targets, load
from masktool.contract import Preprocessing
from masktool.explainers.method import METHODS

SIZE = (8, 8)
PHOTOGRAPH = (12, 16)
SAMPLES = 6
NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
all (float[N, 3, 8, 8] image) => (float[N, 4] logits, float[N, 1, 8, 8] saliency_map)
<float[6, 3, 3, 3] kernel, float[6, 4] weight, float[1, 6, 1, 1] readout>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
    salient = Conv(active, readout)
    saliency_map = Sigmoid(salient)
}
"""
"""It has all that a method may ask for: gradients, a feature map with a head and a masking model's map."""
ROUNDING = 1e-5
"""Of sums in another order, relative to the largest value."""


@pytest.fixture(scope="module", params=["layer", "fill"])
def session(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("all") / "all.onnx"
    preprocessing = Preprocessing(size=SIZE, resize="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    options = {"preprocessing": preprocessing, "output_kind": "logits", "class_output": "logits"}
    masktool.export(parse(NETWORK), path, masking=request.param, gradient="logit", head="last", **options)
    with load(path, "cpu", threads=1) as opened:
        yield opened


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return request.param


def run(session, method, **options):
    samples = SAMPLES if METHODS[method].samples_option else None
    return explain(session, noise_photograph(PHOTOGRAPH), method, n_samples=samples, **options)


def test_the_map_lies_on_the_photograph(session, method):
    found = run(session, method)
    assert found.attributions.shape == PHOTOGRAPH
    assert found.attributions.dtype == np.float32
    assert np.isfinite(found.attributions).all()  # the whole photograph is resized: the model looked everywhere
    assert found.model_attributions.shape == SIZE


def test_a_seed_gives_one_map(session, method):
    first, second = (run(session, method, seed=3) for _ in range(2))
    assert np.array_equal(first.attributions, second.attributions)


def test_passes_of_another_size_change_nothing(session, method):
    one, three = (run(session, method, perturbations_per_eval=size).model_attributions for size in (1, 3))
    assert np.abs(one - three).max() <= ROUNDING * np.abs(one).max()


def test_the_settings_hold_every_option_and_are_json(session, method):
    found = run(session, method)
    own = {field.name for field in dataclasses.fields(METHODS[method])}
    assert own - set(found.settings) <= {"feature_mask"}  # an array: the explanation's ``segments``
    assert json.loads(json.dumps(found.settings)) == found.settings


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"masker"}))  # whose map is of the predicted class
def test_several_targets_get_what_each_gets_alone(session, method):
    samples = SAMPLES if METHODS[method].samples_option else None
    together = explain_targets(session, noise_photograph(PHOTOGRAPH), [0, 2], method, n_samples=samples)
    for target, found in zip((0, 2), together, strict=True):
        alone = run(session, method, target=target).model_attributions
        assert found.target == target
        assert np.abs(found.model_attributions - alone).max() <= ROUNDING * np.abs(alone).max()


def test_the_picture_is_drawn(session, method):
    assert run(session, method).plot().mode == "RGB"
