"""Every embedded method in a file for other runtimes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from exporters.test_portable import assert_portable, graphs_of
from networks.small_graphs import parse

import masktool
from embedding.explained_files import NETWORK, images, write_explained
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS


def samples_of(method):
    return 6 if METHODS[method].samples_option else None


def run(path, **feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.mark.parametrize(
    "method", quickly(["integrated-gradients", "lime", "neuromask", "occlusion", "rise"], sorted(EMBEDDED_METHODS))
)
def test_it_gives_what_any_other_file_gives(tmp_path, method):
    samples = samples_of(method)
    usual = write_explained(tmp_path / "usual.onnx", method, n_samples=samples, target="required")
    portable = write_explained(tmp_path / "portable.onnx", method, n_samples=samples, target="required", portable=True)
    model = assert_portable(portable)
    assert [value.name for value in model.graph.input][:2] == ["image", "target"]
    feed = {"image": images(), "target": np.array([-1])}
    expected, found = run(usual, **feed), run(portable, **feed)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-4 * max(np.ptp(values), np.abs(values).max()), name


def test_no_loop_over_images(tmp_path):
    usual = write_explained(tmp_path / "usual.onnx")
    portable = write_explained(tmp_path / "portable.onnx", portable=True)
    loops = [
        sum(node.op_type == "Loop" for graph in graphs_of(model.graph) for node in graph.node)
        for model in (assert_portable(portable), onnx.load(usual))
    ]
    assert loops == [1, 2]


def test_on_request(tmp_path):
    path = write_explained(tmp_path / "request.onnx", on_request="required", portable=True)
    wanted = run(path, image=images(), explain=np.array([True]))
    unwanted = run(path, image=images(), explain=np.array([False]))
    assert wanted["saliency_map"].shape == (1, 1, 12, 10)
    assert unwanted["saliency_map"].shape == (0, 1, 12, 10)
    assert np.allclose(wanted["logits"], unwanted["logits"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "option"), [("target", {"target": "optional"}), ("explain", {"on_request": "optional"})]
)
def test_optional_inputs_are_refused(tmp_path, name, option):
    with pytest.raises(MasktoolError, match=f"every input of a portable file is required.*input '{name}'"):
        masktool.export_explained(parse(NETWORK), tmp_path / "x.onnx", output_kind="logits", portable=True, **option)
