"""What ONNX Runtime fused is taken apart, and computes what it computed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session

RNG = np.random.default_rng(5)
IMAGES = RNG.standard_normal((2, 4, 6, 8)).astype(np.float32)
ROUNDING = 1e-5
"""Relative: what is written out may run in other kernels, whose sums have another order."""
CONSTANTS = {
    "w": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32),
    "b": RNG.standard_normal(4).astype(np.float32),
    "m": RNG.standard_normal((8, 5)).astype(np.float32),
    "mt": RNG.standard_normal((5, 8)).astype(np.float32),
    "g": RNG.standard_normal(8).astype(np.float32),
    "h": RNG.standard_normal(8).astype(np.float32),
    "k": RNG.standard_normal((4, 5)).astype(np.float32),
    "row": np.array([0, -1, 8]),
}
PADS = "pads = [1, 1, 1, 1]"
CONVOLUTIONS = {
    "relu": f'y = com.microsoft.FusedConv <{PADS}, activation = "Relu"> (x, w, b)',
    "leaky": f'y = com.microsoft.FusedConv <{PADS}, activation = "LeakyRelu", activation_params = [0.2]> (x, w, b)',
    "clip": f'y = com.microsoft.FusedConv <{PADS}, activation = "Clip", activation_params = [-1.0, 2.0]> (x, w, b)',
    "hard sigmoid": f'y = com.microsoft.FusedConv <{PADS}, activation = "HardSigmoid", activation_params = [0.2, 0.5]> '
    "(x, w, b)",
    "no bias": 'y = com.microsoft.FusedConv <activation = "Tanh", strides = [2, 1]> (x, w)',
    "gemm": 'p = GlobalAveragePool (x) f = Flatten (p) y = com.microsoft.FusedGemm <activation = "Relu", alpha = 0.5> '
    "(f, k)",
    "leaky gemm": "p = GlobalAveragePool (x) f = Flatten (p) "
    'y = com.microsoft.FusedGemm <activation = "LeakyRelu", activation_alpha = 0.3> (f, k)',
}
OTHERS = {
    "residual": f'y = com.microsoft.FusedConv <{PADS}, activation = "Relu"> (x, w, b, x)',
    "product": "y = com.microsoft.FusedMatMul <alpha = 0.5> (x, m)",
    "product with a transposed weight": "y = com.microsoft.FusedMatMul <alpha = 2.0, transB = 1> (x, mt)",
    "gelu": "y = com.microsoft.Gelu (x)",
    "gelu with a bias": "y = com.microsoft.BiasGelu (x, g)",
    "fast gelu": "y = com.microsoft.FastGelu (x)",
    "fast gelu with a bias": "y = com.microsoft.FastGelu (x, g)",
    "quick gelu": "y = com.microsoft.QuickGelu <alpha = 1.5> (x)",
    "quick gelu of 1": "y = com.microsoft.QuickGelu <alpha = 1.0> (x)",
    "skip and norm": "f = Reshape (x, row) y = com.microsoft.SkipLayerNormalization <epsilon = 0.001> (f, f, g, h)",
    "skip, bias and norm, and their sum": "f = Reshape (x, row) "
    "n, none1, none2, total = com.microsoft.SkipLayerNormalization (f, f, g, h, h) y = Add (n, total)",
}


def graph(nodes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[n, 4, 6, 8] x) => (float y) {{ {nodes} }}"""
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name in sorted(set(re.findall(r"\w+", nodes)) & set(CONSTANTS)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(CONSTANTS[name], name))
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    return open_session(model.SerializeToString()).run(None, {"x": IMAGES})[0]


@pytest.mark.parametrize("nodes", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_fused_convolutions_and_products_keep_every_bit(nodes: str) -> None:
    canonical = canonicalise(ir.from_proto(graph(nodes)))
    assert all(node.domain == "" for node in canonical.graph)
    np.testing.assert_array_equal(run(ir.to_proto(canonical)), run(graph(nodes)))


@pytest.mark.parametrize("nodes", OTHERS.values(), ids=list(OTHERS))
def test_other_fused_operators_are_written_out(nodes: str) -> None:
    canonical = canonicalise(ir.from_proto(graph(nodes)))
    expected = run(graph(nodes))
    assert all(node.domain == "" for node in canonical.graph)
    np.testing.assert_allclose(run(ir.to_proto(canonical)), expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize(
    "nodes",
    [
        'y = com.microsoft.FusedConv <activation = "Swish"> (x, w)',
        "f = Reshape (x, row) n, mean = com.microsoft.SkipLayerNormalization (f, f, g, h) y = Add (n, mean)",
        "y = com.microsoft.Inverse (x)",
    ],
    ids=["unknown activation", "statistics that are read", "no rewrite"],
)
def test_what_cannot_be_taken_apart_stays_for_its_refusal(nodes: str) -> None:
    canonical = canonicalise(ir.from_proto(graph(nodes)))
    assert "com.microsoft" in {node.domain for node in canonical.graph}


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_an_optimised_file_keeps_every_bit(data_dir: Path, level: str, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    source = str(data_dir / "weights" / "cifar_resnet20_ts_op13.onnx")
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    images = RNG.standard_normal((2, 3, 32, 32)).astype(np.float32)
    feed = {session.get_inputs()[0].name: images}
    optimised = ir.load(tmp_path / "optimised.onnx")
    assert ("com.microsoft" in {node.domain for node in optimised.graph}) is (level == "EXTENDED")
    canonical = canonicalise(optimised)
    assert all(node.domain == "" for node in canonical.graph)
    found = open_session(ir.to_proto(canonical).SerializeToString()).run(None, feed)[0]
    np.testing.assert_array_equal(found, open_session(str(tmp_path / "optimised.onnx")).run(None, feed)[0])


def test_half_precision_gets_constants_of_its_own_type() -> None:
    model = graph("half = Cast <to = 10> (x) a = com.microsoft.Gelu (half) y = Cast <to = 1> (a)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT16, None))
    canonical = canonicalise(ir.from_proto(model))
    assert {value.dtype for value in canonical.graph.initializers.values()} == {ir.DataType.FLOAT16}
    x = IMAGES.astype(np.float64)
    expected = x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    np.testing.assert_allclose(run(ir.to_proto(canonical)), expected, atol=5e-3)
