"""The contract of every mask rule, on the samples registered beside it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from masktool.contract import SamplerRule
from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session
from masktool.exporters.propagate import mask_model
from masktool.ops.graph import MASK_RULES
from masktool.ops.samples import SAMPLES as SAMPLES_OF
from masktool.ops.samples import Sample

SAMPLES = [
    pytest.param((sample, rule), id=f"{op_type}: {sample.name}{' under the cell rule' if rule == 'cell' else ''}")
    for op_type, samples in SAMPLES_OF.items()
    for sample in samples
    for rule in (("published", "cell") if sample.narrow else ("published",))
]
ROUNDING = 2e-6
"""Relative: the same sums in another order."""


def build(sample: Sample) -> onnx.ModelProto:
    """Returns the plain model of a sample, with a symbolic batch."""
    rng = np.random.default_rng(0)
    height, width = sample.size
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {sample.opset}]>'
        f" sample (float[batch, {sample.channels}, {height}, {width}] x) => (float y) {{ {sample.text} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")  # "float y" says a scalar; inference is to find it
    for name, shape in sample.weights.items():
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for name, values in sample.constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model


def mask_sample(sample: Sample, rule: SamplerRule) -> onnx.ModelProto:
    """Returns the masked model of a sample."""
    model = canonicalise(ir.from_proto(build(sample)))
    mask_model(model, "x", "NCHW", mask_required=False, rule=rule)
    return ir.to_proto(model)


@pytest.fixture(scope="module", params=SAMPLES)
def case(request: pytest.FixtureRequest) -> tuple[Sample, SamplerRule]:
    """Each sample in turn, for all tests before the next one, and the rule of its samplers."""
    return request.param


@pytest.fixture(scope="module")
def sample(case: tuple[Sample, SamplerRule]) -> Sample:
    """The sample."""
    return case[0]


@pytest.fixture(scope="module")
def session(case: tuple[Sample, SamplerRule]) -> onnxruntime.InferenceSession:
    """The sample's masked form, made once."""
    proto = mask_sample(*case)
    onnx.checker.check_model(proto, full_check=True)
    return open_session(proto.SerializeToString())


def draw(sample: Sample, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and binary masks with a missing half, scattered pixels and a lone kept corner among them."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((batch, sample.channels, *sample.size)).astype(np.float32)
    masks = (rng.random((batch, 1, *sample.size)) < 0.5).astype(np.float32)
    masks[0, :, :, : sample.size[1] // 2] = 0
    if batch > 1:
        masks[1] = 0
        masks[1, :, :2, :2] = 1
    return images, masks


def test_every_operator_with_an_own_rule_has_a_sample() -> None:
    rules_with_samples = {MASK_RULES[op_type] for op_type, samples in SAMPLES_OF.items() if samples}
    without = {op_type for op_type, rule in MASK_RULES.items() if rule not in rules_with_samples}
    assert not without


def test_the_cell_rule_changes_what_is_narrow_alone() -> None:
    narrow = [sample for samples in SAMPLES_OF.values() for sample in samples if sample.narrow]
    assert narrow
    for sample in narrow:
        published, cell = (mask_sample(sample, rule).graph for rule in ("published", "cell"))
        assert published.node != cell.node, sample.name
    wide = next(sample for sample in SAMPLES_OF["Conv"] if not sample.narrow)
    assert mask_sample(wide, "published").graph.node == mask_sample(wide, "cell").graph.node


def test_ones_are_exact(sample: Sample, session: onnxruntime.InferenceSession) -> None:
    images, masks = draw(sample, 3)
    plain = open_session(build(sample).SerializeToString()).run(None, {"x": images})[0]
    tolerance = sample.ones_tolerance * np.abs(plain).max()
    with_ones = session.run(None, {"x": images, "mask": np.ones_like(masks)})[0]
    np.testing.assert_allclose(with_ones, plain, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(session.run(None, {"x": images})[0], with_ones)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_values_under_zero_never_matter(sample: Sample, session: onnxruntime.InferenceSession, poison: float) -> None:
    images, masks = draw(sample, 3)
    poisoned = np.where(masks == 0, np.float32(poison), images)
    clean = session.run(None, {"x": images, "mask": masks})[0]
    assert np.isfinite(clean).all()
    np.testing.assert_array_equal(session.run(None, {"x": poisoned, "mask": masks})[0], clean)


def test_the_mask_matters(sample: Sample, session: onnxruntime.InferenceSession) -> None:
    images, masks = draw(sample, 3)
    shape_only = sample.text.startswith("s = Shape")
    difference = np.abs(session.run(None, {"x": images, "mask": masks})[0] - session.run(None, {"x": images})[0]).max()
    assert difference > 0.01 or shape_only


def test_batches_and_single_runs_agree(sample: Sample, session: onnxruntime.InferenceSession) -> None:
    images, masks = draw(sample, 5)
    together = session.run(None, {"x": images, "mask": masks})[0]
    one_image = session.run(None, {"x": images[:1], "mask": masks})[0]
    scale = np.abs(together).max()
    for i in range(5):
        alone = session.run(None, {"x": images[i : i + 1], "mask": masks[i : i + 1]})[0]
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=0, atol=ROUNDING * scale)
        alone = session.run(None, {"x": images[:1], "mask": masks[i : i + 1]})[0]
        np.testing.assert_allclose(one_image[i : i + 1], alone, rtol=0, atol=ROUNDING * scale)


def test_an_empty_mask_gives_finite_values_that_do_not_depend_on_the_image(
    sample: Sample, session: onnxruntime.InferenceSession
) -> None:
    images, masks = draw(sample, 3)
    empty = session.run(None, {"x": images, "mask": np.zeros_like(masks)})[0]
    assert np.isfinite(empty).all()
    np.testing.assert_array_equal(empty, session.run(None, {"x": -2 * images, "mask": np.zeros_like(masks)})[0])
