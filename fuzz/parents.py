"""Small networks of the kinds that random programs do not reach: quantised, recurrent, with subgraphs, detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Shapes = Mapping[str, tuple[int, ...] | np.ndarray]
HEAD = '<ir_version: 10, opset_import: ["" : OPSET, "own" : 1]> NAME '
CONV = "<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>"
STEM = f"c = Conv {CONV} (x, w, b) r = Relu (c)"
POOLED = "p = GlobalAveragePool (h) f = Flatten (p) y = Gemm <transB = 1> (f, v, u)"
WEIGHTS: Shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (5, 4), "u": (5,), "k": (4, 4, 3, 3)}
"""Of a stem from 3 to 4 channels, of a head from 4 channels to 5 classes, and of a layer between them."""
IN, OUT = "(float[N,3,12,12] x)", "(float[N,5] y)"


def integers(*numbers: int, dtype: Any = np.int64) -> np.ndarray:
    """Returns an array of integers."""
    return np.array(numbers, dtype)


def scalar(number: float, dtype: Any = np.float32) -> np.ndarray:
    """Returns an array of no axes."""
    return np.array(number, dtype)


QUANTISED: Shapes = {
    **WEIGHTS,
    **{"s": scalar(0.05), "z": scalar(128, np.uint8), "sw": scalar(0.02), "zw": scalar(0, np.int8)},
    "wq": np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    "kq": np.random.default_rng(2).integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
}
KINDS: Mapping[str, tuple[int, str, Shapes]] = {
    "qdq": (
        17,
        f"""{IN} => {OUT} {{
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) dw = DequantizeLinear (wq, sw, zw)
        c = Conv {CONV} (d, dw) r = Relu (c) q2 = QuantizeLinear (r, s, z) d2 = DequantizeLinear (q2, s, z)
        dk = DequantizeLinear (kq, sw, zw) e = Conv {CONV} (d2, dk) q3 = QuantizeLinear (e, s, z)
        d3 = DequantizeLinear (q3, s, z) a = Add (d2, d3) q4 = QuantizeLinear (a, s, z)
        h = DequantizeLinear (q4, s, z) {POOLED} }}""",
        QUANTISED,
    ),
    "qlinear": (
        13,
        f"""{IN} => {OUT} {{
        q = QuantizeLinear (x, s, z) c = QLinearConv {CONV} (q, s, z, wq, sw, zw, s, z)
        h = DequantizeLinear (c, s, z) {POOLED} }}""",
        QUANTISED,
    ),
    "half": (
        18,
        f"""{IN} => {OUT} {{
        xh = Cast <to = 10> (x) c = Conv {CONV} (xh, wh) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p)
        g = MatMul (f, vh) y = Cast <to = 1> (g) }}""",
        {
            "wh": np.random.default_rng(3).standard_normal((4, 3, 3, 3)).astype(np.float16),
            "vh": np.random.default_rng(4).standard_normal((4, 5)).astype(np.float16),
        },
    ),
    "double": (
        15,
        "(double[N,3,12,12] x) => (double[N,5] y) { r = Tanh (x) m = ReduceMean <axes = [2, 3], keepdims = 0> (r) "
        "y = MatMul (m, wd) }",
        {"wd": np.random.default_rng(5).standard_normal((3, 5))},
    ),
    "if": (
        17,
        f"""{IN} => {OUT} {{ {STEM} m = ReduceMean <keepdims = 0> (r) t = Greater (m, half)
        h = If (t) <then_branch = yes () => (float[N,4,12,12] o) {{ o = Conv {CONV} (r, k) }},
        else_branch = no () => (float[N,4,12,12] e) {{ g = Neg (r) e = Add (g, r) }}> {POOLED} }}""",
        {**WEIGHTS, "half": scalar(0.5)},
    ),
    "if-known": (
        13,
        f"""{IN} => {OUT} {{ {STEM} sh = Shape (r) n = Gather (sh, one) t = Equal (n, four)
        h = If (t) <then_branch = yes () => (float[N,4,12,12] o) {{ o = Conv {CONV} (r, k) }},
        else_branch = no () => (float[N,4,12,12] e) {{ e = Identity (r) }}> {POOLED} }}""",
        {**WEIGHTS, "one": scalar(1, np.int64), "four": scalar(4, np.int64)},
    ),
    "loop": (
        16,
        f"""{IN} => {OUT} {{ {STEM}
        h = Loop (trips, go, r) <body = step (int64 i, bool on, float[N,4,12,12] a) => (bool next, float[N,4,12,12] o)
        {{ next = Identity (on) g = Conv {CONV} (a, k) o = Tanh (g) }}> {POOLED} }}""",
        {**WEIGHTS, "trips": scalar(3, np.int64), "go": scalar(1, np.bool_)},
    ),
    "scan": (
        16,
        f"""(float[1,3,12,12] x) => (float[12,4] s) {{ {STEM} p = ReduceMean <axes = [0, 2], keepdims = 0> (r)
        q = Transpose <perm = [1, 0]> (p)
        l, s = Scan <num_scan_inputs = 1, body = step (float[4] a, float[4] i) => (float[4] o, float[4] e)
        {{ o = Add (a, i) e = Relu (o) }}> (zero, q) }}""",
        {**WEIGHTS, "zero": np.zeros(4, np.float32)},
    ),
    "function": (
        18,
        f"""{IN} => {OUT} {{ {STEM} g = own.Block <alpha = 0.2> (r, k) h = own.Block <alpha = 0.1> (g, k) {POOLED} }}
        <domain: "own", opset_import: ["" : 18]> Block <alpha> (a, q) => (o)
        {{ c = Conv <pads = [1, 1, 1, 1]> (a, q) l = LeakyRelu <alpha: float = @alpha> (c) o = Add (l, a) }}""",
        WEIGHTS,
    ),
    "lstm": (
        14,
        f"""(float[N,3,12,12] x) => (float[12,N,5] y) {{ {STEM} m = MaxPool <kernel_shape = [12, 1]> (r)
        q = Squeeze (m, two) t = Transpose <perm = [2, 0, 1]> (q)
        o, oh, oc = LSTM <hidden_size = 6, direction = "bidirectional"> (t, lw, lr, lb)
        a = Transpose <perm = [0, 2, 1, 3]> (o) f = Reshape (a, flat) y = MatMul (f, lv) }}""",
        {
            **WEIGHTS,
            **{"two": integers(2), "flat": integers(0, 0, -1), "lv": (12, 5)},
            **{"lw": (2, 24, 4), "lr": (2, 24, 6), "lb": (2, 48)},
        },
    ),
    "gru": (
        14,
        f"""(float[1,3,12,12] x) => (float[1,5] y) {{ {STEM} f = Reshape (r, flat) t = Transpose <perm = [2, 0, 1]> (f)
        o, oh = GRU <hidden_size = 5> (t, gw, gr) y = Squeeze (oh, axis) }}""",
        {**WEIGHTS, "flat": integers(1, 4, 144), "gw": (1, 15, 4), "gr": (1, 15, 5), "axis": integers(0)},
    ),
    "transposed": (
        11,
        f"""{IN} => (float[N,2,24,24] y) {{ {STEM} m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (m, t) a = Add (d, r)
        e = ConvTranspose <strides = [2, 2], kernel_shape = [3, 3], pads = [1, 1, 1, 1], output_padding = [1, 1]> (a, o)
        y = Sigmoid (e) }}""",
        {**WEIGHTS, "t": (4, 4, 2, 2), "o": (4, 2, 3, 3)},
    ),
    "resize": (
        13,
        f"""{IN} => (float[N,5,12,12] y) {{ {STEM} m = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        i = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (m, , , sizes)
        s = Resize <mode = "nearest"> (m, , scales) a = Concat <axis = 1> (i, s, r) y = Conv (a, q) }}""",
        {**WEIGHTS, "sizes": integers(1, 4, 12, 12), "scales": np.array([1, 1, 2, 2], np.float32), "q": (5, 12, 1, 1)},
    ),
    "attention": (
        17,
        f"""{IN} => {OUT} {{ c = Conv <strides = [4, 4], kernel_shape = [4, 4]> (x, patch) f = Reshape (c, flat)
        t = Transpose <perm = [0, 2, 1]> (f) n = LayerNormalization (t, g, g) q = MatMul (n, wq) k = MatMul (n, wk)
        kt = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, kt) d = Div (s, two) a = Softmax <axis = -1> (d)
        o = MatMul (a, n) e = Add (o, t) m = ReduceMean <axes = [1], keepdims = 0> (e) y = MatMul (m, wv) }}""",
        {
            **{"patch": (8, 3, 4, 4), "flat": integers(0, 8, -1), "g": (8,), "wq": (8, 8), "wk": (8, 8), "wv": (8, 5)},
            "two": scalar(2),
        },
    ),
    "attention-23": (
        23,
        f"""{IN} => {OUT} {{ c = Conv <strides = [4, 4], kernel_shape = [4, 4]> (x, patch) f = Reshape (c, flat)
        t = Transpose <perm = [0, 2, 1]> (f) n = RMSNormalization (t, g)
        a = Attention <q_num_heads = 2, kv_num_heads = 2> (n, n, n) m = ReduceMean <keepdims = 0> (a, one)
        y = MatMul (m, wv) }}""",
        {"patch": (8, 3, 4, 4), "flat": integers(0, 8, -1), "g": (8,), "one": integers(1), "wv": (8, 5)},
    ),
    "detector": (
        12,
        f"""(float[1,3,12,12] x) => (int64[M,3] chosen, float[1,144,4] boxes) {{ {STEM} o = Conv (r, q)
        f = Reshape (o, flat) t = Transpose <perm = [0, 2, 1]> (f) boxes = Slice (t, from, four, axis)
        s = Slice (f, four, six, one) p = Sigmoid (s) chosen = NonMaxSuppression (boxes, p, most, iou, score) }}""",
        {
            **WEIGHTS,
            **{"q": (6, 4, 1, 1), "flat": integers(1, 6, 144), "from": integers(0), "four": integers(4)},
            **{"six": integers(6), "axis": integers(2), "one": integers(1), "most": integers(9)},
            **{"iou": np.array([0.5], np.float32), "score": np.array([0.4], np.float32)},
        },
    ),
    "bytes": (
        15,
        f"""(uint8[N,12,12,3] image) => {OUT} {{ i = Cast <to = 1> (image) s = Mul (i, scale) d = Sub (s, mean)
        x = Transpose <perm = [0, 3, 1, 2]> (d) {STEM}
        h = MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (r) {POOLED} }}""",
        {**WEIGHTS, "scale": scalar(1 / 255), "mean": np.array([0.4, 0.5, 0.6], np.float32)},
    ),
    "fixed-batch": (
        11,
        f"""(float[4,3,12,12] x) => (float[4,5] y) {{ {STEM}
        g = Reshape (r, groups) t = Transpose <perm = [0, 2, 1, 3, 4]> (g)
        h = Reshape (t, back) {POOLED} }}""",
        {**WEIGHTS, "groups": integers(4, 2, 2, 12, 12), "back": integers(4, 4, 12, 12)},
    ),
    "shuffled-pixels": (
        13,
        f"""{IN} => (float[N,1,24,24] y) {{ u = SpaceToDepth <blocksize = 2> (x) c = Conv {CONV} (u, q) r = PRelu (c, a)
        d = DepthToSpace <blocksize = 4, mode = "CRD"> (r) y = Clip (d, low, high) }}""",
        {"q": (16, 12, 3, 3), "a": (16, 1, 1), "low": scalar(0), "high": scalar(1)},
    ),
    "normed": (
        21,
        f"""{IN} => {OUT} {{ {STEM} g = GroupNormalization <num_groups = 2> (r, b, b) e = Gelu (g)
        t = Transpose <perm = [0, 2, 3, 1]> (e) l = LayerNormalization (t, b, b) h = Transpose <perm = [0, 3, 1, 2]> (l)
        {POOLED} }}""",
        WEIGHTS,
    ),
    "einsum": (
        12,
        f"""{IN} => {OUT} {{ {STEM} a = Einsum <equation = "nchw,kc->nkhw"> (r, v) s = Softmax <axis = 1> (a)
        m = ReduceSum <axes = [2, 3], keepdims = 0> (s) y = Add (m, u) }}""",
        WEIGHTS,
    ),
    "sampled": (
        20,
        f"""(float[1,3,12,12] x) => (float[1,5] y) {{ {STEM}
        a = GlobalAveragePool (r) e = Flatten (a) t = MatMul (e, tw) m = Reshape (t, matrix)
        g = AffineGrid (m, size) h = GridSample <align_corners = 1> (r, g) {POOLED} }}""",
        {**WEIGHTS, "tw": (4, 6), "matrix": integers(1, 2, 3), "size": integers(1, 4, 12, 12)},
    ),
    "scattered": (
        16,
        f"""(float[1,3,12,12] x) => (float[1,5] y) {{ {STEM} h = ScatterND (r, where, what) {POOLED} }}""",
        {**WEIGHTS, "where": np.array([[0, 0], [0, 2]], np.int64), "what": np.zeros((2, 12, 12), np.float32)},
    ),
    "two-inputs": (
        17,
        f"""(float[N,3,12,12] x, float[N,4] extra) => {OUT} {{ {STEM} p = GlobalAveragePool (r) f = Flatten (p)
        a = Add (f, extra) y = Gemm <transB = 1> (a, v, u) }}""",
        WEIGHTS,
    ),
    "best": (
        11,
        f"""{IN} => (float[N,2] values, int64[N,2] indices, int64[N] best) {{ {STEM}
        p = GlobalMaxPool (r) f = Flatten (p)
        l = Gemm <transB = 1> (f, v, u) s = Softmax <axis = 1> (l)
        values, indices = TopK (s, two)
        best = ArgMax <axis = 1, keepdims = 0> (l) }}""",
        {**WEIGHTS, "two": integers(2)},
    ),
    "sequence": (
        13,
        f"""{IN} => {OUT} {{ {STEM} q = SplitToSequence <axis = 1> (r, two) a = SequenceAt (q, one)
        e = SequenceAt (q, nought) h = Concat <axis = 1> (a, e) {POOLED} }}""",
        {**WEIGHTS, "two": scalar(2, np.int64), "one": scalar(1, np.int64), "nought": scalar(0, np.int64)},
    ),
}
"""By name: opset, text, and weights, as arrays or as shapes of random ones."""


def write_kinds() -> list[bytes]:
    """Returns the networks of this page as files."""
    return [write_kind(name).SerializeToString() for name in KINDS]


def write_kind(name: str) -> onnx.ModelProto:
    """Returns one network of this page."""
    opset, text, weights = KINDS[name]
    head = HEAD.replace("OPSET", str(opset)).replace("NAME", name.replace("-", "_"))
    model, rng = onnx.parser.parse_model(head + text), np.random.default_rng(0)
    read = {each for graph in graphs_of(model) for node in graph.node for each in node.input}
    for weight, shape in weights.items():
        array = shape if isinstance(shape, np.ndarray) else 0.3 * rng.standard_normal(shape, np.float32)
        if weight in read:
            model.graph.initializer.append(numpy_helper.from_array(array, weight))
    return model


def graphs_of(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """Returns the graph of a model and the graphs in its nodes."""
    found = [model.graph]
    for graph in found:  # grows while it is walked over
        found += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return found
