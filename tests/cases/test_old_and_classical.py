"""Operators that ONNX removed, and what stands behind a network and is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import every_value
from onnx import TensorProto, helper, numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source

X = np.random.default_rng(1).uniform(0, 255, (2, 3, 9, 10)).astype(np.float32)


def with_weight(text: str, channels: int = 3) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((4, channels, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    if model.ir_version < 4:
        model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.shape))
    return model


def old(operator: str, opset: int = 7) -> onnx.ModelProto:
    return with_weight(
        f"""<ir_version: 3, opset_import: ["" : {opset}]> g (float[N,3,9,10] x) => (float[N,4] y) {{
        s = {operator} (x) c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (s, w) r = Relu (c)
        p = GlobalAveragePool (r) y = Flatten (p) }}"""
    )


OLD = {
    "ImageScaler <scale = 0.5, bias = [-10.0, 20.0, 3.5]>": lambda x: (
        x * 0.5 + np.float32([-10, 20, 3.5]).reshape(1, 3, 1, 1)
    ),
    "ImageScaler <bias = [1.0, 2.0, 3.0]>": lambda x: x + np.float32([1, 2, 3]).reshape(1, 3, 1, 1),
    "Affine <alpha = 0.01, beta = -1.0>": lambda x: np.float32(0.01) * x - 1,
    "Crop <border = [1, 2, 3, 0]>": lambda x: x[:, :, 2:, 1:-3],
    "Crop <border = [1, 2, 0, 0], scale = [4, 5]>": lambda x: x[:, :, 2:6, 1:6],
    "ScaledTanh <alpha = 2.0, beta = 0.01>": lambda x: 2 * np.tanh(np.float32(0.01) * x),
    "ParametricSoftplus <alpha = 2.0, beta = 0.01>": lambda x: 2 * np.log1p(np.exp(np.float32(0.01) * x)),
}


@every_value(operator=list(OLD), opset=[7, 9])
def test_operators_that_onnx_removed(operator: str, opset: int, tmp_path: Path) -> None:
    masktool.export(old(operator, opset), tmp_path / "m.onnx")
    plain = with_weight(
        """<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,h,v] s) => (float[N,4] y) {
        c = Conv <pads = [1, 1, 1, 1]> (s, w) r = Relu (c) p = GlobalAveragePool (r) y = Flatten (p) }"""
    )
    # NumPy computes what the removed operator's specification says, ONNX Runtime the rest
    changed = np.ascontiguousarray(OLD[operator](X), np.float32)
    expected = onnxruntime.InferenceSession(plain.SerializeToString()).run(None, {"s": changed})[0]
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_allclose(session.run(X)["y"], expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_lifted_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(MasktoolError) as caught:
        masktool.export(old("ImageScaler <bias = [1.0, 2.0, 3.0]>", opset=6), tmp_path / "m.onnx")
    message = str(caught.value)
    assert "experimental operators that ONNX removed: ImageScaler" in message
    assert "convert the network again" in message


# Classical machine learning behind the network

NAMES = ["cat", "dog", "cow", "owl"]
HEAD = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> g (float[N,3,9,10] x) '
BODY = """ c = Conv (x, w) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p) s = Softmax (f) """


def zip_map(labels: str = "classlabels_strings", values: Any = NAMES) -> onnx.ModelProto:
    model = with_weight(HEAD + "=> (float[N,4] s) {" + BODY + "}")
    model.graph.node.append(helper.make_node("ZipMap", ["s"], ["z"], domain="ai.onnx.ml", **{labels: values}))
    key = TensorProto.STRING if labels == "classlabels_strings" else TensorProto.INT64
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    del model.graph.output[:]
    model.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(kind)))
    return model


def plain_scores() -> np.ndarray:
    model = with_weight(HEAD + "=> (float[N,4] s) {" + BODY + "}")
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [("classlabels_strings", NAMES, NAMES), ("classlabels_int64s", [7, 5, 3, 1], ["7", "5", "3", "1"])],
)
def test_a_zip_map_is_cut_off(labels: str, values: Any, expected: list[str], masking: Any, tmp_path: Path) -> None:
    source = load_source(zip_map(labels, values))
    assert any("cut off behind the network: ZipMap" in note for note in source.notes)
    metadata = masktool.export(source, tmp_path / "m.onnx", masking=masking).metadata
    assert metadata.labels == tuple(expected)
    assert metadata.class_output == "s"
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_array_equal(session(X), plain_scores())


def test_a_label_of_text_beside_the_scores(tmp_path: Path) -> None:
    model = with_weight(
        HEAD + "=> (float[N,4] s, string[N] label) {" + BODY + " i = ArgMax <axis = 1, keepdims = 0> (s) }"
    )
    encoder = helper.make_node(
        "LabelEncoder", ["i"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2, 3], values_strings=NAMES
    )
    model.graph.node.append(encoder)
    metadata = masktool.export(model, tmp_path / "m.onnx").metadata
    assert metadata.labels == tuple(NAMES)
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.output_names == ["s"]
        np.testing.assert_array_equal(session(X), plain_scores())


LOOKED_UP = 'names = Constant <value_strings = ["cat", "dog", "cow", "owl"]> ()'
YES_NO = 'yes = Constant <value_string = "yes"> () no = Constant <value_string = "no"> () '
TEXTS = {
    "gather": (f"i = ArgMax <axis = 1, keepdims = 0> (s) {LOOKED_UP} label = Gather (names, i)", True),
    "squeezed": (
        f"i = ArgMax <axis = 1> (s) q = Squeeze (i, one) {LOOKED_UP} t = Gather (names, q) label = Identity (t)",
        True,
    ),
    "top": (f"v, i = TopK (s, one) q = Squeeze (i, one) {LOOKED_UP} label = Gather (names, q)", True),
    "weight": ("i = ArgMax <axis = 1, keepdims = 0> (s) label = Gather (stored, i)", True),
    "shifted": (
        "i = ArgMax <axis = 1, keepdims = 0> (s) j = Add (i, one) "
        'names = Constant <value_strings = ["nothing", "cat", "dog", "cow", "owl"]> () label = Gather (names, j)',
        False,
    ),
    "threshold": (
        f"m = ReduceMax <keepdims = 0> (s, one) g = Greater (m, h) {YES_NO} label = Where (g, yes, no)",
        False,
    ),
    "digits": ("i = ArgMax <axis = 1, keepdims = 0> (s) label = Cast <to = 8> (i)", False),
    "branches": (
        "m = ReduceMax <keepdims = 0> (s) g = Less (m, h) label = If (g) <"
        'then_branch = t () => (string a) { a = Constant <value_string = "no"> () }, '
        'else_branch = e () => (string b) { b = Constant <value_string = "yes"> () }>',
        False,
    ),
    "constant": ('label = Constant <value_strings = ["cat", "dog", "cow", "owl"]> ()', False),
}


@every_value(
    case=[(kind, scores) for kind in TEXTS for scores in (True, False) if scores or kind != "constant"],
    masking=["layer", "fill"],
)
def test_texts_of_standard_operators_are_cut_off(case: tuple[str, bool], masking: Any, tmp_path: Path) -> None:
    """A text looked up from the scores is no output of a network; names looked up by the best one are the labels.

    A constant text alone is computed by no network.
    """
    kind, scores = case
    tail, named = TEXTS[kind]
    shape = "" if kind == "branches" else "[L]"
    model = with_weight(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,9,10] x) =>
        (string{shape} label{", float[N,4] s" if scores else ""}) <int64[1] one = {{1}}, float h = {{0.3}}> {{
        c = Conv (x, w) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p) s = Softmax (f) {tail} }}"""
    )
    model.graph.initializer.append(
        helper.make_tensor("stored", TensorProto.STRING, [4], [b"cat", b"dog", b"cow", b"owl"])
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = X / 255
    assert session.run(["label"], {"x": x})[0].dtype == object
    metadata = masktool.export(model, tmp_path / "m.onnx", masking=masking).metadata
    assert metadata.labels == (("cat", "dog", "cow", "owl") if named else None)
    with masktool.load(tmp_path / "m.onnx") as masked:
        found = masked.run(x)
    assert list(found) == ["s"]
    if scores:
        np.testing.assert_array_equal(found["s"], session.run(["s"], {"x": x})[0])
    elif kind == "gather":
        assert session.run(["label"], {"x": x})[0].tolist() == [metadata.labels[i] for i in found["s"].argmax(1)]


def test_two_names_chosen_by_a_threshold(tmp_path: Path) -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N,3,9,10] x) => (string[N] label) <int64[1] one = {1}> {
        c = Conv (x, w) p = GlobalAveragePool (c) f = Flatten (p) m = ReduceMean (f, one) s = Sigmoid (m)
        h = Constant <value_float = 0.5> () g = Greater (s, h) q = Squeeze (g, one)
        yes = Constant <value_string = "cat"> () no = Constant <value_string = "dog"> () label = Where (q, yes, no) }"""
    )
    masktool.export(model, tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as masked:
        found = masked.run(X)
    label = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]
    assert list(found) == ["s"]
    assert label.tolist() == ["cat" if score > 0.5 else "dog" for score in found["s"].ravel()]


def test_a_classifier_on_features_leaves_the_features(tmp_path: Path) -> None:
    model = with_weight(HEAD + "=> (int64[N] label, float[N,2] scores) {" + BODY.replace("s = Softmax (f)", "") + "}")
    classifier = helper.make_node(
        "LinearClassifier",
        ["f"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[0.5] * 8,
        intercepts=[0.0, 1.0],
        classlabels_ints=[0, 1],
    )
    model.graph.node.append(classifier)
    source = load_source(model)
    assert [value.name for value in source.model.graph.outputs] == ["f"]
    assert source.labels is None
    assert masktool.export(source, tmp_path / "m.onnx").metadata.parity["ones"] == 0


@pytest.mark.parametrize(
    "end",
    [
        "z = SequenceConstruct (f, s)",
        "l = Constant <value_ints = [2, 2]> () z = SplitToSequence <axis = 1> (s, l)",
        "z = Optional (s)",
    ],
)
def test_sequences_are_cut_off(end: str, tmp_path: Path) -> None:
    model = with_weight(HEAD + "=> (float[N,4] z) {" + BODY + end + "}")
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    make = helper.make_optional_type_proto if "Optional" in end else helper.make_sequence_type_proto
    model.graph.output[0].CopyFrom(helper.make_value_info("z", make(tensor)))
    masktool.export(model, tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.output_names == (["f", "s"] if "Construct" in end else ["s"])
        np.testing.assert_array_equal(session.run(X)["s"], plain_scores())


def test_a_scaler_in_front_is_no_tail() -> None:
    model = with_weight(HEAD + "=> (float[N,4] s) {" + BODY.replace("Conv (x", "Conv (k") + "}")
    scaler = helper.make_node("Scaler", ["x"], ["k"], domain="ai.onnx.ml", scale=[0.1], offset=[0.0])
    model.graph.node.insert(0, scaler)
    source = load_source(model)
    assert source.notes == ()
    assert next(node.op_type for node in source.model.graph) == "Scaler"
