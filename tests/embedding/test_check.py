"""``check_export`` on files that explain themselves: altered ones fail by the figure concerned, others pass."""

import numpy as np
import onnx
import pytest
from combinations import quickly
from onnx import numpy_helper

import masktool
from embedding.explained_files import NETWORK, write_explained, write_network
from masktool.cli import run
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS


def verdicts(check):
    return {verdict.figure: verdict for verdict in check.verdicts}


@pytest.mark.parametrize(
    "method", quickly(["integrated-gradients", "lime", "neuromask", "occlusion", "rise"], sorted(EMBEDDED_METHODS))
)
def test_a_file_as_it_was_written_passes(tmp_path, method):
    samples = 6 if METHODS[method].samples_option else None
    path = write_explained(tmp_path / "file.onnx", method, n_samples=samples, seed=3)
    alone = masktool.check_export(path)
    assert not alone.failed
    assert verdicts(alone)["explanation"].passed is None
    beside = masktool.check_export(path, tmp_path / "network.onnx")
    assert not beside.failed
    assert {name: each.passed for name, each in verdicts(beside).items()} == dict.fromkeys(
        ("predictions", "explanation", "sha256"), True
    )


def test_inputs_and_settings_of_the_export_are_taken_up(tmp_path):
    path = write_explained(
        tmp_path / "file.onnx",
        masking="fill",
        baseline="black",
        sliding_window_shapes=3,
        strides=2,
        target="required",
        on_request="required",
        chunk=2,
    )
    check = masktool.check_export(path, tmp_path / "network.onnx")
    assert not check.failed
    assert verdicts(check)["explanation"].value <= 1e-4


def alter(path, change):
    model = onnx.load(path)
    bodies = [attribute.g for node in walk(model.graph) for attribute in node.attribute if attribute.HasField("g")]
    weights = [tensor for graph in (model.graph, *bodies) for tensor in graph.initializer]
    change(weights)
    onnx.save(model, path)


def walk(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from walk(attribute.g)


def change_weights(weights):
    for tensor in weights:
        if tensor.name.endswith("weight"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))


def test_altered_weights_fail(tmp_path):
    path = write_explained(tmp_path / "file.onnx")
    alter(path, change_weights)
    assert {"predictions", "explanation"} <= {
        each.figure for each in masktool.check_export(path, tmp_path / "network.onnx").failed
    }


def test_another_network_fails(tmp_path):
    path = write_explained(tmp_path / "file.onnx")
    other = write_network(tmp_path / "other.onnx", NETWORK.replace("Relu", "Sigmoid"))
    assert {"predictions", "sha256"} <= {each.figure for each in masktool.check_export(path, other).failed}


def test_a_map_of_other_options_fails(tmp_path):
    path = write_explained(tmp_path / "file.onnx", sliding_window_shapes=4, strides=3)
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "masktool.explanation":
            assert '"strides": [3, 3]' in entry.value
            entry.value = entry.value.replace('"strides": [3, 3]', '"strides": [2, 2]')
    onnx.save(model, path)
    check = masktool.check_export(path, tmp_path / "network.onnx")
    assert [each.figure for each in check.failed] == ["explanation"]


def test_a_label_map_that_is_not_recorded_is_said(tmp_path):
    labels = np.arange(120).reshape(12, 10) // 30
    path = write_explained(tmp_path / "file.onnx", "lime", n_samples=6, feature_mask=labels)
    assert not masktool.check_export(path).failed
    with pytest.raises(MasktoolError, match="stands in no metadata"):
        masktool.check_export(path, tmp_path / "network.onnx")


def test_the_command_says_what_cannot_be_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_explained(tmp_path / "file.onnx")
    assert run(["export", "--check", "file.onnx"]) == 0
    out, said = capsys.readouterr()
    assert "explanation" in out
    assert "as recorded at export; not measured without the source" in out
    assert "masktool export --check file.onnx SOURCE" in said
    assert run(["export", "--check", "file.onnx", "network.onnx"]) == 0
    assert "every figure is within its limit" in capsys.readouterr().err
    alter(tmp_path / "file.onnx", change_weights)
    assert run(["export", "--check", "file.onnx", "network.onnx"]) == 1
