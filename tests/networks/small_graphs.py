"""Small ONNX graphs, written as text, for tests that need a model and not a particular one."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

CLASSIFIER = """
<ir_version: 10, opset_import: ["" : 20]>
classifier (float[{batch}, 3, 8, 8] image) => (float[{batch}, 4] scores)
<float[6, 3, 3, 3] kernel, float[6] bias, float[6, 4] weight>
{{
    [convolve] features = Conv<pads = [1, 1, 1, 1]>(image, kernel, bias)
    [activate] active = Relu(features)
    [pool] pooled = GlobalAveragePool(active)
    [flatten] flat = Flatten(pooled)
    [classify] {classify}
}}
"""

OPEN_SIZE = """
<ir_version: 10, opset_import: ["" : 20]>
open (float[N, 3, H, W] image) => (float[N, 4] logits)
<float[4, 3, 3, 3] kernel>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    pooled = GlobalAveragePool(features)
    logits = Flatten(pooled)
}
"""
"""A classifier of four classes that leaves height and width open."""


def parse(text: str, **weights: object) -> onnx.ModelProto:
    """Parses a graph; what it declares between < and > becomes weights, with the values given or random ones."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for declared in model.graph.value_info:
        tensor_type = declared.type.tensor_type
        shape = [axis.dim_value for axis in tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        value = np.asarray(weights.get(declared.name, rng.standard_normal(shape))).astype(dtype).reshape(shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, declared.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def classifier(batch: str | int = "N", classify: str = "scores = Gemm(flat, weight)") -> onnx.ModelProto:
    """A convolution, a ReLU, a global mean and a classifier of four classes, for images (batch, 3, 8, 8)."""
    return parse(CLASSIFIER.format(batch=batch, classify=classify))
