"""Small networks of many kinds, most of them no CNN, with random weights: what ``--masking fill`` has to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser

BATCH = "N"
SIDE = 12
"""Of the images (N, 3, 12, 12); some networks say otherwise."""
SCALE = 0.3
"""Standard deviation of weights."""

FLATTEN = "f = Flatten (x)"
CONV = "h = Conv <pads = [1, 1, 1, 1]> (x, kernel) a = Relu (h)"
POOLED = f"{CONV} p = GlobalAveragePool (a) f = Flatten (p)"
PATCHES = """
    s1 = Constant <value_ints = [-1, 3, 3, 4, 3, 4]> () r1 = Reshape (x, s1)
    t1 = Transpose <perm = [0, 2, 4, 1, 3, 5]> (r1) s2 = Constant <value_ints = [-1, 9, 48]> () r2 = Reshape (t1, s2)
    e = MatMul (r2, embed)"""
ENDS = "c0 = Constant <value_ints = [1]> () m = ReduceMean <keepdims = 0> (out, c0) y = Gemm (m, head)"

NO_CNN: dict[str, str] = {
    "softmax regression": f"{FLATTEN} s = Gemm (f, flat4) y = Softmax (s)",
    "MLP on pixels": f"{FLATTEN} g = Gemm (f, flat16) a = Relu (g) y = Gemm (a, head)",
    "vision transformer": f"""{PATCHES} z = Add (e, places)
        q = MatMul (z, wq) k = MatMul (z, wk) v = MatMul (z, wv) kt = Transpose <perm = [0, 2, 1]> (k)
        d = MatMul (q, kt) w = Softmax (d) o = MatMul (w, v) n = LayerNormalization (o, gain) u = MatMul (n, wu)
        g = Gelu (u) out = Add (g, z) {ENDS}""",
    "MLP-Mixer": f"""{PATCHES} t2 = Transpose <perm = [0, 2, 1]> (e) u = MatMul (t2, mix) g = Gelu (u)
        t3 = Transpose <perm = [0, 2, 1]> (g) out = Add (t3, e) {ENDS}""",
    "LSTM over rows": """t = Transpose <perm = [2, 0, 1, 3]> (x) s = Constant <value_ints = [0, 0, 36]> ()
        r = Reshape (t, s) o, last, cell = LSTM <hidden_size = 16> (r, lw, lr) z = Constant <value_ints = [0]> ()
        q = Squeeze (last, z) y = Gemm (q, head)""",
    "GRU over columns, both ways": """t = Transpose <perm = [3, 0, 1, 2]> (x) s = Constant <value_ints = [0, 0, 36]> ()
        r = Reshape (t, s) o, last = GRU <hidden_size = 8, direction = "bidirectional"> (r, gw, gr)
        u = Transpose <perm = [1, 0, 2]> (last) q = Flatten (u) y = Gemm (q, head)""",
    "RNN written as a Scan": """t = Transpose <perm = [2, 0, 1, 3]> (x) s = Constant <value_ints = [0, 0, 36]> ()
        r = Reshape (t, s) n = Shape <start = 0, end = 1> (x) w = Constant <value_ints = [16]> ()
        c = Concat <axis = 0> (n, w) z = ConstantOfShape (c)
        last = Scan <num_scan_inputs = 1, body = b (float[n, 16] before, float[n, 36] row) => (float[n, 16] after)
            { i = MatMul (row, step) j = Add (before, i) after = Tanh (j) }> (z, r)
        y = Gemm (last, head)""",
    "nearest prototypes": f"""{FLATTEN} z = Constant <value_ints = [1]> () u = Unsqueeze (f, z) d = Sub (u, prototypes)
        w = Constant <value_ints = [2]> () n = ReduceL2 <keepdims = 0> (d, w) y = Neg (n)
        nearest = ArgMin <axis = 1, keepdims = 0> (n)""",
    "histogram of colours": """v = Constant <value_ints = [-1]> () u = Unsqueeze (x, v) d = Sub (u, bins) q = Mul (d, d)
        n = Neg (q) e = Exp (n) w = Constant <value_ints = [2, 3]> () m = ReduceMean <keepdims = 0> (e, w)
        f = Flatten (m) y = Gemm (f, colours)""",
    "Fourier power spectrum": """z = Constant <value_ints = [-1]> () u = Unsqueeze (x, z)
        i = Constant <value_int = 3> () d = DFT <onesided = 0> (u, , i)
        w = Constant <value_ints = [-1, 1]> () q = ReduceSumSquare <keepdims = 0> (d, w)
        f = Flatten (q) y = Gemm (f, power)""",
    "decision by If on brightness": f"""{FLATTEN} m = ReduceMean <keepdims = 0> (f) t = Constant <value_float = 0.0> ()
        c = Greater (m, t) s = Gemm (f, flat4)
        y = If (c) <then_branch = yes () => (float[M, 4] v) {{ v = Neg (s) }},
            else_branch = no () => (float[M, 4] w) {{ w = Abs (s) }}>""",
    "Loop over images": f"""{FLATTEN} s = Gemm (f, flat4) n = Shape <start = 0, end = 1> (s) m = Squeeze (n)
        t = Constant <value = bool {{1}}> ()
        y = Loop (m, t) <body = g (int64 i, bool c) => (bool d, float[4] out)
            {{ d = Identity (c) row = Gather <axis = 0> (s, i) out = Tanh (row) }}>""",
    "Loop until it is bright enough": f"""{FLATTEN} s = Gemm (f, flat4) m = Constant <value = int64 {{20}}> ()
        t = Constant <value = bool {{1}}> ()
        y = Loop (m, t, s) <body = g (int64 i, bool c, float[N, 4] before) => (bool d, float[N, 4] after)
            {{ k = Constant <value_float = 1.1> () after = Mul (before, k) a = Abs (after)
               h = ReduceMax <keepdims = 0> (a) l = Constant <value_float = 2.0> () d = Less (h, l) }}>""",
    "TopK behind an MLP": f"""{FLATTEN} g = Gemm (f, flat16) a = Relu (g) s = Gemm (a, head) y = Softmax (s)
        k = Constant <value_ints = [2]> () best, which = TopK (y, k)""",
    "mean of bright pixels by NonZero": f"""{FLATTEN} t = Constant <value_float = 0.5> () c = Greater (x, t)
        n = NonZero (c) p = Transpose (n) g = GatherND (x, p) m = ReduceMean <keepdims = 1> (g)
        s = Gemm (f, flat4) y = Add (s, m)""",
    "gather of the brightest place": f"""{FLATTEN} i = ArgMax <axis = 1, keepdims = 1> (f)
        v = GatherElements <axis = 1> (f, i) s = Gemm (f, flat4) y = Mul (s, v)""",
    "sequence of two heads": f"""{FLATTEN} y = Gemm (f, flat4) g = Gemm (f, flat16)
        both = SequenceConstruct (y, g)""",
    "median filter by sorting": """k = Constant <value_ints = [12]> () v, i = TopK <axis = 3> (x, k)
        j = Constant <value_int = 6> () w = Gather <axis = 3> (v, j) f = Flatten (w) y = Gemm (f, rank)""",
    "embedding, normalised": f"""{FLATTEN} g = Gemm (f, flat16) y = LpNormalization (g)""",
    "hashed bits": f"""{FLATTEN} g = Gemm (f, flat4) s = Sign (g) y = Mul (s, s)
        bits = Cast <to = 7> (s)""",
}
"""From ``x`` (N, 3, 12, 12) to ``y`` and what else it names; the weights stand in :data:`WEIGHTS`."""

CNN: dict[str, str] = {
    "NMS in the graph": f"""{CONV} d = Conv (a, boxes5) s = Constant <value_ints = [-1, 5, 144]> () r = Reshape (d, s)
        i = Constant <value_ints = [0, 1, 2, 3]> () j = Constant <value_ints = [4]> () b = Gather <axis = 1> (r, i)
        boxes = Transpose <perm = [0, 2, 1]> (b) c = Gather <axis = 1> (r, j) y = Sigmoid (c)
        m = Constant <value_ints = [20]> () o = Constant <value_floats = [0.5]> ()
        selected = NonMaxSuppression (boxes, y, m, o, o)""",
    "ScatterND into the scores": f"""{POOLED} s = Gemm (f, six4) i = Constant <value = int64[1, 1] {{0}}> ()
        u = Constant <value = float[1, 4] {{9.0, 0.0, 0.0, 0.0}}> () y = ScatterND (s, i, u)""",
    "spatial transformer": f"""{POOLED} th = Gemm (f, theta) c1 = Constant <value_ints = [-1, 2, 3]> ()
        t = Reshape (th, c1) n = Shape (x) g = AffineGrid (t, n) w = GridSample (x, g)
        b = Conv <pads = [1, 1, 1, 1]> (w, kernel) e = GlobalAveragePool (b) d = Flatten (e) y = Gemm (d, six4)""",
    "softmax over the batch": f"{POOLED} s = Gemm (f, six4) y = Softmax <axis = 0> (s)",
    "statistics of the batch at hand": f"""{CONV}
        b, r, v = BatchNormalization <training_mode = 1> (a, six, none, mean, positive)
        p = GlobalAveragePool (b) f = Flatten (p) y = Gemm (f, six4)""",
}

WEIGHTS = {
    "flat4": (432, 4),
    "flat16": (432, 16),
    "head": (16, 4),
    "embed": (48, 16),
    "places": (9, 16),
    "wq": (16, 16),
    "wk": (16, 16),
    "wv": (16, 16),
    "wu": (16, 16),
    "gain": (16,),
    "mix": (9, 9),
    "lw": (1, 64, 36),
    "lr": (1, 64, 16),
    "gw": (2, 24, 36),
    "gr": (2, 24, 8),
    "step": (36, 16),
    "prototypes": (4, 432),
    "power": (144, 4),
    "colours": (48, 4),
    "rank": (36, 4),
    "kernel": (6, 3, 3, 3),
    "boxes5": (5, 6, 1, 1),
    "six4": (6, 4),
    "six": (6,),
    "none": (6,),
    "mean": (6,),
    "positive": (6,),
    "theta": (6, 6),
    "bins": (16,),
}
"""Shapes by name."""


def build(body: str, *, image: str = f"float[{BATCH}, 3, {SIDE}, {SIDE}]") -> onnx.ModelProto:
    """Returns a graph from ``x`` to whatever it computes and nothing reads, ``y`` first."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]> g ({image} x) => (float y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    inner = [each for node in graph.node for a in node.attribute for each in a.g.node]
    read = {name for node in (*graph.node, *inner) for name in node.input}
    rng = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        drawn = rng.normal(0, SCALE, shape).astype(np.float32)
        if name in read:
            values = np.abs(drawn) if name == "positive" else drawn
            graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    del graph.output[:]
    known = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    ends = ["y", *(name for name in made if name not in read and name != "y" and name in NAMED_ENDS)]
    graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in ends)
    return model


NAMED_ENDS = ("boxes", "selected", "best", "which", "nearest", "both", "bits")
"""Results that are returned beside ``y``."""


def others() -> dict[str, onnx.ModelProto]:
    """Returns networks that differ in their ends: types, fixed batches, what stands behind them."""
    mlp = NO_CNN["MLP on pixels"]
    pixels = "c = Cast <to = 1> (x) k = Constant <value_float = 0.00392> () m = Mul (c, k)"
    behind = NO_CNN["softmax regression"].replace("(x)", "(m)")
    half = """c = Cast <to = 10> (x) f = Flatten (c) w = Cast <to = 10> (flat16) g = Gemm (f, w) a = Relu (g)
        v = Cast <to = 10> (head) s = Gemm (a, v) y = Cast <to = 1> (s)"""
    return {
        "uint8 image": build(f"{pixels} {behind}", image=f"uint8[{BATCH}, 3, {SIDE}, {SIDE}]"),
        "fixed batch of 8": build(mlp, image=f"float[8, 3, {SIDE}, {SIDE}]"),
        "fp16 inside": build(half),
        "ZipMap behind an MLP": with_zipmap(build(NO_CNN["softmax regression"])),
        "trees on pixels": trees(),
        "linear classifier of scikit-learn": linear_classifier(),
    }


def with_zipmap(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a classifier as services export it: a dictionary of scores behind the softmax."""
    node = onnx.helper.make_node("ZipMap", ["y"], ["scores"], domain="ai.onnx.ml", classlabels_strings=list("abcd"))
    model.graph.node.append(node)
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(
            onnx.TensorProto.STRING, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
        )
    )
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_value_info("scores", kind))
    return model


def trees() -> onnx.ModelProto:
    """Returns two stumps on pixels: classical machine learning is all there is of it."""
    model = build("f = Flatten (x) y = Identity (f)")
    del model.graph.node[1:], model.graph.output[:]
    rows: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2, 0, 1, 2],
        "nodes_featureids": [70, 0, 0, 200, 0, 0],
        "nodes_values": [0.1, 0.0, 0.0, -0.2, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
        "target_treeids": [0, 0, 1, 1],
        "target_nodeids": [1, 2, 1, 2],
        "target_ids": [0, 1, 1, 2],
        "target_weights": [1.0, 0.5, 0.7, 0.2],
        "n_targets": 3,
    }
    node = onnx.helper.make_node("TreeEnsembleRegressor", ["f"], ["y"], domain="ai.onnx.ml", **rows)
    model.graph.node.append(node)
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [BATCH, 3]))
    return model


def linear_classifier() -> onnx.ModelProto:
    """Returns a linear classifier as scikit-learn's converter writes it: names, and a dictionary of probabilities."""
    model = build("f = Flatten (x) y = Identity (f)")
    del model.graph.node[1:], model.graph.output[:]
    names = list("abcd")
    weights = np.random.default_rng(1).normal(0, SCALE, 4 * 432).tolist()
    node = onnx.helper.make_node(
        "LinearClassifier",
        ["f"],
        ["label", "y"],
        domain="ai.onnx.ml",
        classlabels_strings=names,
        coefficients=weights,
        intercepts=[0.0] * 4,
        post_transform="SOFTMAX",
        multi_class=1,
    )
    model.graph.node.append(node)
    with_zipmap(model)
    model.graph.output.append(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.STRING, [BATCH]))
    return model


def build_all() -> dict[str, tuple[bool, onnx.ModelProto]]:
    """Returns every network by name, with whether it is no CNN."""
    found = {name: (True, build(body)) for name, body in NO_CNN.items()}
    found |= {name: (False, build(body)) for name, body in CNN.items()}
    return found | {name: (True, model) for name, model in others().items()}
