"""Networks that declare an open batch and run with one number of images only, which the trace wrote down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool
from masktool.contract import Masking
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export

BODIES = {
    "a view of two images": (
        2,
        "any",
        """c = Constant <value_ints = [2, 6, 64]> () r = Reshape (a, c) l = Constant <value_ints = [2]> ()
        e = ReduceMean <keepdims = 0> (r, l) y = Gemm (e, weight)""",
    ),
    "a view of sixteen images": (
        16,
        "any",
        """c = Constant <value_ints = [16, -1]> () r = Reshape (f, c) y = Gemm (r, weight)""",
    ),
    "every axis of length 1 dropped": (
        2,
        "any",
        "q = Squeeze (p) l = Constant <value_ints = [1]> () m = ReduceMax (q, l) d = Sub (q, m) y = Gemm (d, weight)",
    ),
    "three images that attend to each other": (
        3,
        "one",
        """c = Constant <value_ints = [3, 6]> () r = Reshape (f, c) t = Transpose (r) g = MatMul (r, t)
        q = Softmax (g) e = MatMul (q, r) y = Gemm (e, weight)""",
    ),
}
"""By what it does, the batch that it runs with, how many images masktool's file takes, and the graph behind ``f``."""


def network(body: str, inputs: str = "") -> onnx.ModelProto:
    """Returns a graph from ``x`` (N, 3, 8, 8) to ``y``."""
    return parse(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 8, 8] x{inputs}) => (float[N, 4] y)
        <float[6, 3, 3, 3] kernel, float[6, 4] weight> {{
            h = Conv <pads = [1, 1, 1, 1]> (x, kernel) a = Relu (h) p = GlobalAveragePool (a) f = Flatten (p)
            {body} }}""")


def images() -> np.ndarray:
    return np.random.default_rng(5).random((3, 3, 8, 8), np.float32) * np.float32([0.2, 1, 3])[:, None, None, None]


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("name", BODIES)
def test_a_network_is_taken_with_the_batch_that_it_runs_with(name: str, masking: Masking, tmp_path: Path) -> None:
    batch, batching, body = BODIES[name]
    source, masked = tmp_path / "plain.onnx", tmp_path / "masked.onnx"
    onnx.save(network(body), source)
    found = masktool.export(source, masked, masking=masking).metadata
    assert found.batching == batching
    assert found.copies == (batch if batching == "one" else 1)
    plain = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"Non-zero status code|ONNXRuntimeError"):
        plain.run(None, {"x": images()[:1]})
    expected = [plain.run(None, {"x": np.repeat(image[None], batch, axis=0)})[0][0] for image in images()]
    with masktool.load(masked) as session:
        given = session(images(), np.ones((3, 1, 8, 8), np.float32))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not check_export(masked, load_source(source)).failed


def test_another_input_has_as_many_rows(tmp_path: Path) -> None:
    body = "c = Constant <value_ints = [2, 6]> () r = Reshape (f, c) s = Gemm (r, weight) y = Add (s, bias)"
    onnx.save(network(body, ", float[N, 4] bias"), tmp_path / "plain.onnx")
    found = masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", image_input="x").metadata
    assert found.batching == "any"


def test_pairs_of_images_are_no_batch(tmp_path: Path) -> None:
    body = """c = Constant <value_ints = [1, 12]> () r = Reshape (f, c) t = Constant <value_ints = [0, 1, 2, 3]> ()
        y = Gather <axis = 1> (r, t)"""
    onnx.save(network(body), tmp_path / "plain.onnx")
    expected = r"random images of 8 x 8, one at a time.*; with 2 at once it does, but gives no row for each image$"
    with pytest.raises(MasktoolError, match=expected):
        masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx")
