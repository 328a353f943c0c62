"""Linear algebra in a graph, against numpy."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from masktool.embedding.flow import Flow
from masktool.embedding.linear_algebra import invert_matrix


@pytest.mark.parametrize(("size", "penalty"), [(1, 1.0), (2, 1.0), (40, 1.0), (60, 0.01)])
def test_inverse(size, penalty):
    samples = np.random.default_rng(0).normal(size=(50, size))
    matrix = samples.T @ samples / 50 + penalty * np.eye(size)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="inverse")
    flow = Flow(graph)
    flow.outputs_are([invert_matrix(flow, flow.floats(matrix), size)])
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    expected = np.linalg.inv(matrix)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
