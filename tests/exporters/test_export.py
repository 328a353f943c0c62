"""``masktool.export``: what it writes, what it says about it, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import masktool
from masktool import MasktoolError, UnsupportedOperatorError
from masktool.contract import RULE_PROPERTY, Metadata, Preprocessing
from masktool.exporters.parity import check_parity, open_session
from masktool.exporters.sources import load_source
from masktool.exporters.tolerance import LIMITS

RNG = np.random.default_rng(0)


def classifier(body: str = "r = Relu (h)", batch: str = "n") -> onnx.ModelProto:
    """Returns a network of 8 × 8 pixels and 5 classes, ``body`` leading from ``h`` to ``r``."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> '
        f"small (float[{batch}, 3, 8, 8] picture) => (float[{batch}, 5] scores) "
        f"{{ h = Conv <pads = [1, 1, 1, 1]> (picture, w) {body} p = GlobalAveragePool (r) f = Flatten (p) "
        "scores = Gemm (f, v) }"
    )
    for name, shape in {"w": (6, 3, 3, 3), "v": (6, 5)}.items():
        weight = RNG.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return model


def test_the_file_is_standard_and_says_what_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "small.onnx", tmp_path / "masked.onnx"
    onnx.save(classifier(), source)
    preprocessing = Preprocessing(size=(8, 8), resize="exact", mean=(0.1, 0.2, 0.3))
    metadata = masktool.export(
        source, target, preprocessing=preprocessing, labels=list("abcde"), output_kind="logits"
    ).metadata
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for function in model.functions for node in function.node} == {""}
    assert {node.domain for node in model.graph.node} == {"", "masktool"}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert Metadata.from_properties(properties) == metadata
    assert metadata.source == "small.onnx"
    assert metadata.source_sha256 == masktool.files.sha256_of(source)
    assert (metadata.image_input, metadata.class_output) == ("picture", "scores")
    assert metadata.labels == tuple("abcde")
    assert metadata.preprocessing == preprocessing
    rules = {entry.value for node in model.graph.node for entry in node.metadata_props if entry.key == RULE_PROPERTY}
    assert rules == {"mask_conv", "mask_zero_preserving", "mask_global_average_pool"}


def test_the_mask_is_optional_unless_required(tmp_path: Path) -> None:
    images = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    model = classifier()
    expected = open_session(model.SerializeToString()).run(None, {"picture": images})[0]
    masktool.export(model, tmp_path / "optional.onnx")
    optional = onnxruntime.InferenceSession(tmp_path / "optional.onnx")
    assert [value.name for value in optional.get_inputs()] == ["picture"]
    assert [value.name for value in optional.get_overridable_initializers()] == ["mask"]
    np.testing.assert_array_equal(optional.run(None, {"picture": images})[0], expected)
    masktool.export(model, tmp_path / "required.onnx", mask_required=True)
    required = onnxruntime.InferenceSession(tmp_path / "required.onnx")
    assert [value.name for value in required.get_inputs()] == ["picture", "mask"]
    ones = np.ones((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(required.run(None, {"picture": images, "mask": ones})[0], expected)


def test_parity_is_measured_and_in_the_file(tmp_path: Path) -> None:
    metadata = masktool.export(classifier(), tmp_path / "masked.onnx").metadata
    assert set(metadata.parity) == {"ones", "left_out", "invariance", "batches", "one_image", "response", "probes"}
    assert metadata.parity["ones"] == metadata.parity["left_out"] == metadata.parity["invariance"] == 0
    assert metadata.parity["response"] > 0.01


@pytest.mark.parametrize("name", sorted(LIMITS))
@pytest.mark.parametrize("figure", [1e-3, float("nan"), float("inf")])
def test_a_figure_beyond_its_limit_stops_the_export(name: str, figure: float) -> None:
    check_parity(dict.fromkeys(LIMITS, 0.0))
    with pytest.raises(MasktoolError, match=f"does not agree with its source: expected {name}"):
        check_parity(dict.fromkeys(LIMITS, 0.0) | {name: figure})


def test_every_unsupported_node_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    body = "a = Trilu (h) b = Relu (a) c = Trilu (b) k = Constant <value_ints = [2]> () "
    body += "q, i = TopK <axis = 2> (c, k) r = Relu (c)"
    with pytest.raises(UnsupportedOperatorError, match="Trilu") as caught:
        masktool.export(classifier(body), tmp_path / "masked.onnx")
    assert [node.op_type for node in caught.value.nodes] == ["Trilu", "Trilu"]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_node_whose_rule_refuses_it_is_listed_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match="runs over the batch"):
        masktool.export(classifier("r = Softmax <axis = 0> (h)"), tmp_path / "m.onnx")


def test_zeros_in_front_of_a_max_pool_count_as_the_network_has_them(tmp_path: Path) -> None:
    # ONNX Runtime's own fusion of the two takes −∞ for the zeros, and so gives something else
    body = """amounts = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> () a = Abs (h) b = Neg (a) c = Pad (b, amounts)
        r = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (c)"""
    assert masktool.export(classifier(body), tmp_path / "masked.onnx").metadata.parity["ones"] == 0


def test_a_subgraph_that_reads_the_image_is_refused(tmp_path: Path) -> None:
    body = """n = ReduceMax <keepdims = 0> (h) one = Constant <value_float = 1.0> ()
        many = Greater (n, one)
        r = If (many) <then_branch = yes () => (float[n, 6, 8, 8] a) { a = Relu (h) },
                       else_branch = no () => (float[n, 6, 8, 8] b) { b = Abs (h) }>"""
    with pytest.raises(UnsupportedOperatorError, match=r"If-18.*subgraphs depend on the image"):
        masktool.export(classifier(body), tmp_path / "masked.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b", "c"]}, "labels do not fit the model: expected 5 names, got 3"),
        ({"preprocessing": Preprocessing(size=(224, 224))}, "another size: expected the model's 8 x 8, got 224 x 224"),
        ({"masking": "blur"}, "unknown masking mode"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(MasktoolError, match=message):
        masktool.export(classifier(), tmp_path / "masked.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_a_masking_model_is_in_the_file_and_stays_there(tmp_path: Path) -> None:
    masker = {"settings": {"objective": "both", "target_area": None}, "stages": ["h"], "figures": {"in": 0.5}}
    source = dataclasses.replace(load_source(classifier()), masker=masker)
    assert masktool.export(source, tmp_path / "masked.onnx").metadata.masker == masker
    assert masktool.load(tmp_path / "masked.onnx").metadata.masker == masker
    later = masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "later.onnx").metadata
    assert later.masker == masktool.load(tmp_path / "later.onnx").metadata.masker == masker
    assert masktool.export(classifier(), tmp_path / "other.onnx").metadata.masker is None


def test_metadata_of_older_files_lack_what_came_later(tmp_path: Path) -> None:
    properties = masktool.export(classifier(), tmp_path / "masked.onnx", gradient="logit").metadata.to_properties()
    for name in ("masker", "losses", "layout"):
        del properties["masktool." + name]
    metadata = Metadata.from_properties(properties)
    assert metadata is not None
    assert (metadata.masker, metadata.losses, metadata.layout) == (None, None, None)


def test_a_second_export_of_an_exported_file_is_refused(tmp_path: Path) -> None:
    masktool.export(classifier(), tmp_path / "masked.onnx")
    with pytest.raises(MasktoolError, match="mask"):
        masktool.export(tmp_path / "masked.onnx", tmp_path / "again.onnx")


def test_a_fixed_batch_is_lifted(tmp_path: Path) -> None:
    model = classifier(batch="1")
    masktool.export(model, tmp_path / "masked.onnx")
    images = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
    together = onnxruntime.InferenceSession(tmp_path / "masked.onnx").run(None, {"picture": images})[0]
    plain = open_session(model.SerializeToString())
    alone = np.concatenate([plain.run(None, {"picture": image[None]})[0] for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_a_model_that_onnx_runtime_does_not_take_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match="ONNX Runtime does not take the model") as caught:
        masktool.export(classifier("r = Add (h, picture)"), tmp_path / "masked.onnx")
    assert "\n" not in str(caught.value)
