"""A small classifier as a user has it: an ONNX file without a mask, labels or preprocessing."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def write_plain_model(path, seed=0):
    """A small CNN without a mask: 3 x 3 convolution, ReLU, global average pooling, softmax."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
    ]
    kernel = numpy_helper.from_array(random.standard_normal((4, 3, 3, 3)).astype(np.float32), "kernel")
    bias = numpy_helper.from_array(random.standard_normal(4).astype(np.float32), "bias")
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
    output = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "plain", [image], [output], [kernel, bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
