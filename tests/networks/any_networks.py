"""Small networks of every kind, for what has to work on any graph: no image, no class scores, inputs of any rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser


class AnyNetwork(NamedTuple):
    """A network, the inputs that it is differentiated for, and its output."""

    model: onnx.ModelProto
    of: tuple[str, ...]
    output: str


def write_network(inputs: str, outputs: str, nodes: str, opset: int = 18, **weights: object) -> onnx.ModelProto:
    """Returns a network from its text; a weight is given as an array, or as a shape that random numbers fill."""
    rng = np.random.default_rng(0)
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    model = onnx.parser.parse_model(f"{header} network ({inputs}) => ({outputs}) {{ {nodes} }}")
    for name, given in weights.items():
        drawn = (0.5 * rng.standard_normal(given)).astype(np.float32) if isinstance(given, tuple) else np.asarray(given)
        model.graph.initializer.append(onnx.numpy_helper.from_array(drawn, name))
    return model


def one(model: onnx.ModelProto) -> AnyNetwork:
    """Returns a network with one input that is differentiated for, ``x``, and the output ``y``."""
    return AnyNetwork(model, ("x",), "y")


def perceptron(kind: str = "float") -> onnx.ModelProto:
    """Returns a network of two layers that computes in float32, float16 or float64."""
    model = write_network(
        "float[N, 6] x", "float[N, 4] y", "[first] a = Gemm(x, w, b) h = Tanh(a) d = Gemm(h, v) y = Softmax(d)",
        w=(6, 8), b=(8,), v=(8, 4),
    )  # fmt: skip
    element = onnx.TensorProto.DataType.Value(kind.upper())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = element
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(element))
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def signal_network() -> onnx.ModelProto:
    """Returns a network of 1-D convolutions, with and without a stride, and pools."""
    return write_network(
        "float[N, 3, 21] x", "float[N, 5] y",
        "a = Conv<pads=[1, 1]>(x, w) b = Relu(a) c = Conv<strides=[2], group=2>(b, v) m = MaxPool<kernel_shape=[2]>(c) "
        "p = AveragePool<kernel_shape=[3], pads=[1, 1]>(m) d = GlobalAveragePool(p) f = Flatten(d) y = Gemm(f, u)",
        w=(4, 3, 3), v=(6, 2, 3), u=(6, 5),
    )  # fmt: skip


def volume_network() -> onnx.ModelProto:
    """Returns a network of 3-D convolutions and pools."""
    return write_network(
        "float[N, 2, 6, 7, 8] x", "float[N, 3] y",
        "a = Conv<pads=[1, 1, 1, 1, 1, 1]>(x, w) b = Relu(a) "
        "c = Conv<strides=[2, 2, 2], pads=[1, 1, 1, 1, 1, 1]>(b, v) m = MaxPool<kernel_shape=[2, 2, 2]>(c) "
        "i = InstanceNormalization(m, g, h) d = Sigmoid(i) "
        "p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, u)",
        w=(4, 2, 3, 3, 3), v=(4, 4, 3, 3, 3), g=(4,), h=(4,), u=(4, 3),
    )  # fmt: skip


def transformer() -> onnx.ModelProto:
    """Returns a vision transformer of one block and two heads, on four patches and a class token."""
    heads, sizes = np.array([0, 5, 2, 4]), np.array([0, 5, 8])
    return write_network(
        "float[N, 3, 8, 8] x", "float[N, 4] y",
        "p = Conv<strides=[4, 4]>(x, w) f = Reshape(p, flat) t = Transpose<perm=[0, 2, 1]>(f) "
        "s = Shape<start=0, end=1>(t) n = Concat<axis=0>(s, one_by_eight) c = Expand(token, n) "
        "k = Concat<axis=1>(c, t) e = Add(k, places) "
        "l = LayerNormalization(e, g, b) q = MatMul(l, wq) r = MatMul(l, wk) v = MatMul(l, wv) "
        "qs = Reshape(q, heads) qh = Transpose<perm=[0, 2, 1, 3]>(qs) rs = Reshape(r, heads) "
        "rh = Transpose<perm=[0, 2, 3, 1]>(rs) vs = Reshape(v, heads) vh = Transpose<perm=[0, 2, 1, 3]>(vs) "
        "z = MatMul(qh, rh) a = Softmax(z) o = MatMul(a, vh) ot = Transpose<perm=[0, 2, 1, 3]>(o) "
        "om = Reshape(ot, sizes) j = Add(e, om) jl = LayerNormalization(j, g, b) "
        "m = MatMul(jl, m1) ge = Gelu(m) mm = MatMul(ge, m2) "
        "i = Add(j, mm) first = Gather<axis=1>(i, zero) y = MatMul(first, head)",
        opset=20, w=(8, 3, 4, 4), token=(1, 1, 8), places=(1, 5, 8), g=(8,), b=(8,), wq=(8, 8), wk=(8, 8), wv=(8, 8),
        m1=(8, 16), m2=(16, 8), head=(8, 4), flat=np.array([0, 8, -1]), one_by_eight=np.array([1, 8]), heads=heads,
        sizes=sizes, zero=np.array(0),
    )  # fmt: skip


def detector() -> onnx.ModelProto:
    """Returns a detector of two scales: a row of numbers for each of 80 places."""
    return write_network(
        "float[1, 3, 32, 32] x", "float[1, 80, 6] y",
        "a = Conv<strides=[4, 4]>(x, w) b = Relu(a) c = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(b, v) d = Relu(c) "
        's = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() e = Resize<mode="nearest", nearest_mode="floor", '
        'coordinate_transformation_mode="asymmetric">(d, , s) f = Concat<axis=1>(b, e) g = Conv(f, t) h = Conv(d, u) '
        "i = Reshape(g, flat) j = Reshape(h, flat) k = Concat<axis=2>(i, j) l = Transpose<perm=[0, 2, 1]>(k) "
        "m, n = Split<axis=2>(l, parts) o = Sigmoid(n) y = Concat<axis=2>(m, o)",
        w=(8, 3, 4, 4), v=(8, 8, 3, 3), t=(6, 16, 1, 1), u=(6, 8, 1, 1), flat=np.array([0, 6, -1]),
        parts=np.array([4, 2]),
    )  # fmt: skip


def siamese() -> AnyNetwork:
    """Returns a network that compares two inputs by the cosine of what one and the same branch makes of them."""
    branch = "a{0} = Gemm({0}, w) h{0} = Tanh(a{0}) e{0} = Gemm(h{0}, v) n{0} = LpNormalization<axis=1, p=2>(e{0})"
    nodes = f"{branch.format('left')} {branch.format('right')} p = Mul(nleft, nright) y = ReduceSum<keepdims=0>(p, one)"
    model = write_network(
        "float[N, 6] left, float[N, 6] right", "float[N] y", nodes, w=(6, 8), v=(8, 5), one=np.array([1])
    )
    return AnyNetwork(model, ("left", "right"), "y")


def recommender() -> AnyNetwork:
    """Returns a network of an item's embedding, by its number, beside what is known of a user."""
    model = write_network(
        "int64[N] item, float[N, 4] user", "float[N, 1] rating",
        "e = Gather(table, item) c = Concat<axis=1>(e, user) a = Gemm(c, w) h = Sigmoid(a) rating = Gemm(h, v)",
        table=(10, 3), w=(7, 6), v=(6, 1),
    )  # fmt: skip
    return AnyNetwork(model, ("user",), "rating")


def decoder() -> onnx.ModelProto:
    """Returns a network from a vector to a map, without a softmax or a class."""
    return write_network(
        "float[N, 5] x", "float[N, 2, 9, 7] y",
        "a = Gemm(x, w) b = Reshape(a, map) c = LeakyRelu(b) "
        "y = ConvTranspose<strides=[3, 2], pads=[0, 1, 0, 0], output_padding=[0, 0]>(c, v)",
        w=(5, 36), v=(3, 2, 3, 2), map=np.array([-1, 3, 3, 4]),
    )  # fmt: skip


def recurrent() -> onnx.ModelProto:
    """Returns a network with two operators that have no gradient rule."""
    return write_network(
        "float[7, N, 3] x", "float[N, 5] y",
        "[memory] h, last = LSTM<hidden_size=5>(x, w, r) s = Squeeze(last, zero) [sums] y = CumSum(s, axis)",
        w=(1, 20, 3), r=(1, 20, 5), zero=np.array([0]), axis=np.array(1),
    )  # fmt: skip


def quantised() -> onnx.ModelProto:
    """Returns a network whose input is quantised."""
    return write_network(
        "float[N, 6] x", "float[N, 4] y",
        "[quantise] q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Gemm(d, w)",
        s=np.float32(0.05), z=np.uint8(128), w=(6, 4),
    )  # fmt: skip


KINDS: dict[str, AnyNetwork] = {
    "perceptron": one(perceptron()),
    "of 1-D convolutions": one(signal_network()),
    "of 3-D convolutions": one(volume_network()),
    "transformer": one(transformer()),
    "detector": one(detector()),
    "siamese": siamese(),
    "recommender": recommender(),
    "decoder": one(decoder()),
}
"""Networks that have a gradient, by kind."""
