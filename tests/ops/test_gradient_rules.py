"""The contract of every gradient rule, on the samples of all mask rules: it agrees with central differences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.utils import Extractor

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session
from masktool.ops.gradients import GRADIENT_RULES, GradientGraph
from masktool.ops.graph import MASK_RULES
from masktool.ops.samples import SAMPLES as SAMPLES_OF
from masktool.ops.samples import Sample
from ops.gradient_models import (
    add_gradients,
    mask_and_inline,
    masked_sample,
    masked_sample_with_gradients,
    open_double,
    rule_of,
    to_half,
)
from ops.test_mask_rules import build
from ops.test_mask_rules import draw as draw_binary

REFUSED_BY_DESIGN = {"QuantizeLinear", "DequantizeLinear"}
"""Rounding has no gradient but 0."""
SAMPLES = [
    pytest.param(sample, id=f"{op_type}: {sample.name}")
    for op_type, samples in SAMPLES_OF.items()
    if op_type not in REFUSED_BY_DESIGN
    for sample in samples
]
POOLED = [each for each in SAMPLES if "= MaxPool" in each.values[0].text]
NOT_IN_HALF = {"MeanVarianceNormalization"}
"""ONNX defines it by a function that adds float32."""
FIRST_SAMPLES = {f"{op_type}: {samples[0].name}" for op_type, samples in SAMPLES_OF.items()}
HALF_SAMPLES = [
    pytest.param(*each.values, id=each.id, marks=() if each.id in FIRST_SAMPLES else pytest.mark.slow)
    for each in SAMPLES
    if str(each.id).split(":")[0] not in NOT_IN_HALF
]
HALF_TOLERANCE = 1e-2
"""Relative to the length of the gradient."""
BATCH = 2
STEP = 1e-6
"""Of central differences: their error, of the order of STEP² and of ε / STEP, is some 1e-10 in float64."""
TOLERANCE = 1e-6
"""Relative to the length of the gradient, the size of a derivative along a random direction."""
DIRECTIONS = 3
ROUNDING = 1e-9
"""Relative to the sum that is differentiated: what rounding leaves of a difference where the gradient is 0."""

Arrays = Mapping[str, np.ndarray]


def without_gradients(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the part of a model that gives its first output."""
    inputs = [value.name for value in model.graph.input if value.name != "seed"]
    return Extractor(model).extract_model(inputs, [model.graph.output[0].name])


def check_against_differences(model: onnx.ModelProto, feeds: Arrays) -> None:
    """Compares the gradients of Σ seed · y with central differences along random directions."""
    rng = np.random.default_rng(2)
    forward = open_double(without_gradients(model))
    output = forward.run(None, feeds)[0]
    seed = rng.standard_normal(output.shape)

    def objective(feeds: Arrays) -> float:
        return float((forward.run(None, feeds)[0] * seed).sum())

    names = [f"gradient_{name}" for name in feeds]
    gradients = open_double(model).run(names, {**feeds, "seed": seed})
    for (name, value), gradient in zip(feeds.items(), gradients, strict=True):
        assert gradient.shape == value.shape
        bound = TOLERANCE * np.linalg.norm(gradient) + ROUNDING * np.abs(seed * output).sum()
        for _ in range(DIRECTIONS):
            step = STEP * rng.standard_normal(value.shape)
            rise = objective({**feeds, name: value + step}) - objective({**feeds, name: value - step})
            assert abs(rise - 2 * (gradient * step).sum()) / (2 * STEP) <= bound, name


def draw(sample: Sample) -> dict[str, np.ndarray]:
    """Returns images, and soft masks away from 0 and 1: binary ones tie in every maximum."""
    rng = np.random.default_rng(1)
    return {
        "x": rng.standard_normal((BATCH, sample.channels, *sample.size)),
        "mask": rng.uniform(0.05, 0.95, (BATCH, 1, *sample.size)),
    }


@pytest.mark.parametrize("sample", SAMPLES)
def test_plain_gradients_are_those_of_central_differences(sample: Sample) -> None:
    model = add_gradients(canonicalise(ir.from_proto(build(sample))))
    check_against_differences(model, {"x": draw(sample)["x"]})


@pytest.mark.parametrize("sample", SAMPLES)
def test_masked_gradients_are_those_of_central_differences(sample: Sample) -> None:
    check_against_differences(masked_sample_with_gradients(sample), draw(sample))


@pytest.mark.parametrize("sample", POOLED)
def test_gradients_without_indices_are_those_of_central_differences(sample: Sample) -> None:
    model = add_gradients(ir.from_proto(masked_sample(sample)), indices_of_maxima=False)
    assert "ScatterElements" not in {node.op_type for node in model.graph.node}
    assert {len(node.output) for node in model.graph.node if node.op_type == "MaxPool"} == {1}
    check_against_differences(model, draw(sample))


@pytest.mark.parametrize("sample", HALF_SAMPLES)
def test_gradients_in_half_precision_run_and_are_those_of_single(sample: Sample) -> None:
    feeds = {name: value.astype(np.float32) for name, value in draw(sample).items()}
    single = masked_sample_with_gradients(sample)
    half = add_gradients(mask_and_inline(to_half(build(sample)), rule_of(sample)))
    (output,) = open_session(without_gradients(single).SerializeToString()).run(None, feeds)
    seed = np.random.default_rng(2).standard_normal(output.shape).astype(np.float32)
    names = [f"gradient_{name}" for name in feeds]
    expected, found = (open_session(m.SerializeToString()).run(names, feeds | {"seed": seed}) for m in (single, half))
    for ours, theirs in zip(found, expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= HALF_TOLERANCE * np.linalg.norm(theirs) + ROUNDING


@pytest.mark.parametrize("sample", SAMPLES)
def test_nothing_reaches_missing_places(sample: Sample) -> None:
    images, masks = draw_binary(sample, 3)
    model = masked_sample_with_gradients(sample)
    session = open_session(model.SerializeToString())
    shape = open_session(without_gradients(model).SerializeToString()).run(None, {"x": images, "mask": masks})[0].shape
    seed = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    names = ["gradient_x", "gradient_mask"]
    by_image, by_mask = session.run(names, {"x": images, "mask": masks, "seed": seed})
    assert np.isfinite(by_mask).all()
    assert np.isfinite(by_image).all()
    assert not by_image[np.broadcast_to(masks == 0, images.shape)].any()


def test_every_operator_with_a_mask_rule_has_a_gradient_rule() -> None:
    assert not set(MASK_RULES) - set(GRADIENT_RULES)


def test_every_operator_that_a_mask_rule_emits_has_a_gradient_rule() -> None:
    samples = [sample for samples in SAMPLES_OF.values() for sample in samples]
    emitted = {node.op_type for sample in samples for node in masked_sample(sample).graph.node if node.input}
    assert not emitted - set(GRADIENT_RULES), sorted(emitted - set(GRADIENT_RULES))


def test_quantised_graphs_are_refused_by_name() -> None:
    (sample, *_) = SAMPLES_OF["QuantizeLinear"]
    model = canonicalise(ir.from_proto(build(sample)))
    graph = GradientGraph(model.graph, model.graph.inputs)
    output = model.graph.outputs[0]
    graph.add(output, graph.zeros_like(output))
    refused = graph.propagate()
    assert {node.op_type for node in refused} == REFUSED_BY_DESIGN
    assert all("before it was quantised" in node.reason for node in refused)


def test_parameters_that_depend_on_the_image_are_refused() -> None:
    sample = Sample("bounds", "low = ReduceMin <keepdims = 0> (x) y = Clip (x, low)", {}, {}, opset=18)
    model = canonicalise(ir.from_proto(build(sample)))
    graph = GradientGraph(model.graph, model.graph.inputs)
    output = model.graph.outputs[0]
    graph.add(output, graph.zeros_like(output))
    (refused,) = graph.propagate()
    assert refused.op_type == "Clip"
    assert "its parameters depend on the input that is differentiated for" in refused.reason


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_weights_that_depend_on_the_image_are_refused(op_type: str) -> None:
    """As of a tracker that correlates one image with another: no gradient may be lost in silence."""
    text = f"w = Slice (x, s, e, a) y = {op_type} (x, w)"
    sample = Sample("own weights", text, {}, {"s": (0, 0, 0), "e": (1, 3, 3), "a": (0, 2, 3)}, opset=18)
    model = canonicalise(ir.from_proto(build(sample)))
    graph = GradientGraph(model.graph, model.graph.inputs)
    output = model.graph.outputs[0]
    graph.add(output, graph.zeros_like(output))
    assert op_type in {node.op_type for node in graph.propagate()}


def test_weights_get_no_gradient() -> None:
    model = canonicalise(ir.from_proto(build(SAMPLES_OF["Conv"][1])))
    add_gradients(model)
    gradients = [node for node in model.graph if (node.name or "").startswith("gradient/")]
    assert [node.op_type for node in gradients].count("ConvTranspose") == 1  # of the sample with a stride: the image's
    assert "Conv" not in {node.op_type for node in gradients}
    assert not {"MatMul", "Gemm", "ReduceSum"} & {node.op_type for node in gradients}
