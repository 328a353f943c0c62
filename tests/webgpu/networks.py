"""The networks that are run on WebGPU, as sources of an export that need no torch."""

import numpy as np
import onnx
import onnxruntime
from networks.families import FAMILIES, HEAD
from networks.small_graphs import parse
from onnx import numpy_helper

from masktool import demo

SHAPES = """
shapes (float[N, 3, 64, 64] image) => (float[N, 8] logits)
{
    stem = Conv<pads = [1, 1, 1, 1]>(image, w0, b0)
    a = Relu(stem)
    a1 = Conv<pads = [1, 1, 1, 1]>(a, w1, b1)
    a2 = Relu(a1)
    a3 = Conv<pads = [1, 1, 1, 1]>(a2, w2, b2)
    a4 = Add(a3, a)
    b = Relu(a4)
    c1 = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(b, w3, b3)
    c2 = Relu(c1)
    c3 = Conv<pads = [1, 1, 1, 1]>(c2, w4, b4)
    c4 = Conv<strides = [2, 2]>(b, w5, b5)
    c5 = Add(c3, c4)
    c = Relu(c5)
    d1 = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(c, w6, b6)
    d2 = Relu(d1)
    d3 = Conv<pads = [1, 1, 1, 1]>(d2, w7, b7)
    d4 = Conv<strides = [2, 2]>(c, w8, b8)
    d5 = Add(d3, d4)
    d = Relu(d5)
    pooled = GlobalAveragePool(d)
    flat = Flatten(pooled)
    logits = Gemm<transB = 1>(flat, w9, b9)
}
"""
"""The built-in network, whose plain form masktool ships for torch alone."""
SHAPES_LAYERS = [
    *("stem.0", "blocks.0.branch.0", "blocks.0.branch.3"),
    *("blocks.1.branch.0", "blocks.1.branch.3", "blocks.1.shortcut.0"),
    *("blocks.2.branch.0", "blocks.2.branch.3", "blocks.2.shortcut.0"),
]
SQUEEZENET_SIDE = 64
"""Pixels instead of 224: its last pooling takes maps of any size, and a driver in software is slow."""
LARGEST_LOGIT = 2
BUILT_IN, RESNET, SQUEEZENET = "built-in model", "CIFAR ResNet-20", "SqueezeNet"
REAL = [BUILT_IN, RESNET, SQUEEZENET]
NETWORKS = [*REAL, *FAMILIES]
CLASS_OUTPUT = {name: {"output_kind": "logits"} for name in [BUILT_IN, *FAMILIES]}
"""Options of an export, where the network does not tell what its output holds."""


def make_network(name, data_dir):
    """Returns a network as an export takes it; ``data_dir`` is a function that returns the folder of test data."""
    if name == BUILT_IN:
        return built_in_network()
    if name == RESNET:
        return data_dir() / "weights" / "cifar_resnet20_ts_op13.onnx"
    if name == SQUEEZENET:
        return small_squeezenet(data_dir() / "weights" / "squeezenet11_caffe2_fp32.onnx")
    return with_moderate_logits(parse(HEAD + FAMILIES[name].strip()))


def with_moderate_logits(model):
    """Returns a network with its last weights scaled so that no probability is near 0 or 1, where gradients vanish."""
    image = np.random.default_rng(0).normal(size=(4, 3, 12, 12)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image})
    (weight,) = [each for each in model.graph.initializer if each.name == "weight"]
    values = numpy_helper.to_array(weight) * (LARGEST_LOGIT / np.abs(logits).max())
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "weight"))
    return model


def built_in_network():
    """Returns the built-in network with the weights of the masked file."""
    weights = {each.name: each for each in onnx.load(demo.model_path()).graph.initializer}
    model = onnx.parser.parse_model(HEAD + SHAPES.strip())
    names = {f"w{i}": f"{layer}.weight" for i, layer in enumerate(SHAPES_LAYERS)}
    names |= {f"b{i}": f"{layer}.weight_bias" for i, layer in enumerate(SHAPES_LAYERS)}
    for name, shipped in (names | {"w9": "classifier.weight", "b9": "classifier.bias"}).items():
        model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weights[shipped]), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def small_squeezenet(path):
    """Returns SqueezeNet for smaller images."""
    model = onnx.load(path)
    (image,) = [each for each in model.graph.input if each.name not in {one.name for one in model.graph.initializer}]
    for axis in image.type.tensor_type.shape.dim[2:]:
        axis.dim_value = SQUEEZENET_SIDE
    del model.graph.value_info[:]
    return model
