"""Networks and options with which no file explains itself."""

import pytest
from networks.small_graphs import OPEN_SIZE, parse

import masktool
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.embedding.options import INSTEAD
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS


def test_an_open_size_is_refused_with_what_fixes_it(tmp_path):
    with pytest.raises(MasktoolError, match=r"leaves its height or width open.*input_size"):
        masktool.export_explained(parse(OPEN_SIZE), tmp_path / "x.onnx", "occlusion", output_kind="logits")
    masktool.export_explained(
        parse(OPEN_SIZE), tmp_path / "x.onnx", "occlusion", output_kind="logits", input_size=(14, 14)
    )


def test_a_model_without_class_scores_is_refused(tmp_path):
    with pytest.raises(MasktoolError, match="of class scores"):
        masktool.export_explained(
            parse(OPEN_SIZE), tmp_path / "x.onnx", "occlusion", class_output="none", input_size=(14, 14)
        )


def test_names_that_an_explanation_adds_are_refused(tmp_path):
    network = parse(OPEN_SIZE.replace("logits", "attributions"))
    with pytest.raises(MasktoolError, match="names that an explanation adds"):
        masktool.export_explained(network, tmp_path / "x.onnx", "occlusion", input_size=(14, 14))


def test_unknown_methods_are_named(tmp_path):
    with pytest.raises(MasktoolError, match="unknown method"):
        masktool.export_explained(parse(OPEN_SIZE), tmp_path / "x.onnx", "nonsense", input_size=(14, 14))


@pytest.mark.parametrize("option", [{"chunk": 0}, {"target": "both"}, {"on_request": "never"}])
def test_options_out_of_range_are_refused(tmp_path, option):
    (name,) = option
    with pytest.raises(MasktoolError, match=name):
        masktool.export_explained(parse(OPEN_SIZE), tmp_path / "x.onnx", "occlusion", input_size=(14, 14), **option)


def test_a_masking_model_is_trained_and_not_added(tmp_path):
    with pytest.raises(MasktoolError, match="is trained, and its file has the map already"):
        masktool.export_explained(parse(OPEN_SIZE), tmp_path / "x.onnx", "masker", input_size=(14, 14))


def test_every_method_can_be_added_or_says_what_to_do_instead(tmp_path):
    refused = {"masker", "coarse-to-fine", "eigen-cam", "recipro-cam", "score-cam"}
    assert set(METHODS) - set(EMBEDDED_METHODS) == set(INSTEAD) == refused
    with pytest.raises(MasktoolError, match=r"depends on the scores of others.*add occlusion"):
        masktool.export_explained(parse(OPEN_SIZE), tmp_path / "x.onnx", "coarse-to-fine", input_size=(14, 14))
