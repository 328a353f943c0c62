"""Networks that call something of theirs as masktool calls something of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export

X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
TEXT = """<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,8,8] IMAGE) => (float[N,4] SCORES, float[N,4,8,8] MAP) {
    INNER = Conv <pads = [1, 1, 1, 1]> (IMAGE, WEIGHT) r = Relu (INNER) MAP = Sigmoid (r)
    p = GlobalAveragePool (r) SCORES = Flatten (p) }"""
PLAIN = {"IMAGE": "x", "SCORES": "y", "MAP": "m", "INNER": "c", "WEIGHT": "w"}
OWN = [
    *("mask", "target", "loss", "objective", "feature_map", "gradient_image", "gradient_mask", "saliency_map"),
    *("masktool/c/Where_1:0", "masktool_constant_0", "masktool/baseline", "x_masked", "x_filled", "c_unmasked_1"),
]


def network(**names: str) -> onnx.ModelProto:
    text, chosen = TEXT, PLAIN | names
    for placeholder in PLAIN:
        text = text.replace(placeholder, f"@{placeholder}@")
    model = onnx.parser.parse_model(text.replace("@", ""))
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "WEIGHT"))
    rename = {placeholder: chosen[placeholder] for placeholder in PLAIN}
    for node in model.graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = rename.get(value.name, value.name)
    return model


def expected(model: onnx.ModelProto) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: X})


ALL_AT_ONCE = [
    {place: OWN[(first + position) % len(OWN)] for position, place in enumerate(PLAIN)} for first in range(len(OWN))
]
"""Networks in each of which five names clash: every name stands once in every place."""
ONE_AT_A_TIME = [{place: name} for name in OWN for place in PLAIN]
CASES = [
    *(pytest.param(names, id="-".join(names.values())) for names in ALL_AT_ONCE),
    *(pytest.param(names, id="-".join(*names.items()), marks=pytest.mark.slow) for names in ONE_AT_A_TIME),
]


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("names", CASES)
def test_no_name_clashes(names: dict[str, str], masking: Any, tmp_path: Path) -> None:
    model, path = network(**names), tmp_path / "m.onnx"
    chosen = PLAIN | names
    metadata = masktool.export(
        load_source(model), path, masking=masking, gradient="logit", class_output=chosen["SCORES"]
    ).metadata
    assert metadata.parity["ones"] == 0
    with masktool.load(path) as session:
        results = list(session.run(X).values())
        for found, wanted in zip(results, expected(model), strict=True):
            np.testing.assert_array_equal(found, wanted)
        gradient = session.gradient(X, np.ones((1, 1, 8, 8), np.float32), target=0)
        assert gradient.image is not None
        assert np.abs(gradient.image).max() > 0
        for place, result in zip(("SCORES", "MAP"), results, strict=True):
            name = chosen[place]
            np.testing.assert_array_equal(session.run(X, outputs=[name])[session.check_output(name)], result)
    assert not check_export(path, load_source(model)).failed


@pytest.mark.parametrize("name", ["target", "loss", "objective", "saliency_map", "feature_map", "gradient_image"])
def test_an_output_keeps_its_name_without_gradients(name: str, tmp_path: Path) -> None:
    metadata = masktool.export(network(MAP=name), tmp_path / "m.onnx").metadata
    assert metadata.renamed is None
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.output_names == ["y", name]


def test_gradients_added_later_rename_outputs_too(tmp_path: Path) -> None:
    masktool.export(network(SCORES="loss"), tmp_path / "m.onnx", class_output="loss")
    metadata = masktool.add_gradients_to(tmp_path / "m.onnx", tmp_path / "g.onnx", loss="softmax").metadata
    assert metadata.class_output == "model_loss"
    assert metadata.renamed == {"loss": "model_loss"}
    with masktool.load(tmp_path / "g.onnx") as session:
        np.testing.assert_array_equal(session(X), expected(network())[0])


def test_an_image_named_mask_and_what_the_user_says(tmp_path: Path) -> None:
    source = load_source(network(IMAGE="mask"), image_input="mask")
    assert source.image_input == "model_mask"
    assert source.notes == (
        "the model's input 'mask' is called 'model_mask' in the file, and by inputs: 'mask' is masktool's own",
    )
    metadata = masktool.export(source, tmp_path / "m.onnx").metadata
    assert metadata.image_input == "model_mask"
    assert metadata.renamed == {"mask": "model_mask"}


def test_a_second_input_named_mask_is_fed_by_its_new_name(tmp_path: Path) -> None:
    model = network()
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ["N", 1, 8, 8]))
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["x", "mask"], ["hidden"]))
    model.graph.node[1].input[0] = "hidden"
    masktool.export(model, tmp_path / "m.onnx", image_input="x")
    given = np.random.default_rng(2).random((2, 1, 8, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X, "mask": given})
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_array_equal(session.run(X, inputs={"model_mask": given})["y"], plain[0])
        with pytest.raises(MasktoolError, match="model_mask"):
            session.run(X, inputs={"mask": given})


def test_a_feature_map_of_the_user_under_its_old_name(tmp_path: Path) -> None:
    metadata = masktool.export(
        network(INNER="feature_map"), tmp_path / "m.onnx", gradient="logit", feature_map="feature_map"
    ).metadata
    assert metadata.feature_map == "model_feature_map"


@pytest.mark.parametrize("length", ["output_batch", "mask_batch"])
def test_lengths_of_masktools_names(length: str, tmp_path: Path) -> None:
    model = network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = length
    masktool.export(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape[0] == f"model_{length}"
    found = session.run(None, {"x": X[:1], "mask": np.ones((5, 1, 8, 8), np.float32)})
    np.testing.assert_array_equal(found[0], np.repeat(expected(network())[0][:1], 5, axis=0))


def test_a_function_in_a_domain_of_masktools_name(tmp_path: Path) -> None:
    model = network()
    function = onnx.parser.parse_function(
        '<domain: "masktool", opset_import: ["" : 18]> NeighborFill (a) => (b) { mask = Relu (a) b = Relu (mask) }'
    )
    model.functions.append(function)
    model.opset_import.add(domain="masktool", version=7)
    model.graph.node[1].op_type, model.graph.node[1].domain = "NeighborFill", "masktool"
    metadata = masktool.export(model, tmp_path / "m.onnx").metadata
    assert metadata.parity["ones"] == 0
