"""What an output means is never stated without evidence: features, landmarks, embeddings, selections, boxes, heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import onnx_ir
import pytest
from PIL import Image

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.exporters.class_candidates import Claims
from masktool.exporters.class_output import ClassOutput, choose_class_output

NOBODY = Claims()
BODY = "c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p)"


def network(outputs: dict[str, str], nodes: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """One convolution, its mean f (N, 8), and a test's own nodes behind it."""
    shapes = {"w": (8, 3, 3, 3), **weights}
    declared = ", ".join(f"float[{', '.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    results = ", ".join(f"{shape} {name}" for name, shape in outputs.items())
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3, 16, 16] x) => ({results}) <{declared}> {{ {BODY} {nodes} }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def choose(outputs: dict[str, str], nodes: str, claims: Claims = NOBODY, **weights: tuple[int, ...]) -> ClassOutput:
    return choose_class_output(onnx_ir.from_proto(network(outputs, nodes, **weights)), claims)


TWO = ({"a": "float[N, 8]", "b": "float[N, 5]"}, "a = Identity(f) b = Gemm(f, h)")
HEADS = ({"age": "float[N, 1]", "gender": "float[N, 2]"}, "age = Gemm(f, v) gender = Gemm(f, h)")


def test_features_before_logits_are_not_the_classes():
    assert choose(*TWO, h=(8, 5)).name == "b"
    assert choose({"logits": "float[N, 8]", "features": "float[N, 5]"}, "logits = Identity(f) features = Gemm(f, h)",
                  h=(8, 5)).name != "logits"  # fmt: skip  # whatever they are called


def test_features_that_are_rearranged_apart_from_the_head_are_recognised():
    nodes = "a = Squeeze(p, axes) k = Unsqueeze(a, axes) q = Reshape(k, two) b = Gemm(q, h)"
    constants = "axes = Constant<value_ints = [2, 3]>() two = Constant<value_ints = [-1, 8]>() "
    assert choose({"a": "float[N, 8]", "b": "float[N, 5]"}, constants + nodes, h=(8, 5)).name == "b"


def test_the_latent_of_an_autoencoder_is_a_feature_map():
    nodes = "z = Gemm(f, h) k = Reshape(z, four) image = ConvTranspose(k, d)"
    constants = "four = Constant<value_ints = [-1, 5, 1, 1]>() "
    outputs = {"z": "float[N, 5]", "image": "float[N, 3, 16, 16]"}
    assert choose(outputs, constants + nodes, h=(8, 5), d=(5, 3, 16, 16)).name is None


def test_labels_decide_among_candidates():
    names = list("abcde")
    assert choose(*TWO, Claims(labels=names), h=(8, 5)) == (
        "b", "logits", ("ends in Gemm", "5 labels for 5 columns"),
    )  # fmt: skip
    assert choose(*HEADS, Claims(labels=["woman", "man"]), v=(8, 1), h=(8, 2)).name == "gender"
    with pytest.raises(MasktoolError, match="the labels do not fit the model: expected 5 or 8 names, got 3 names"):
        choose(*TWO, Claims(labels=list("abc")), h=(8, 5))


def test_two_heads_are_a_question():
    with pytest.raises(MasktoolError) as error:
        choose({"emotion": "float[N, 7]", "gender": "float[N, 2]"}, "emotion = Gemm(f, v) gender = Gemm(f, h)",
               v=(8, 7), h=(8, 2))  # fmt: skip
    assert str(error.value).startswith(
        "2 outputs may hold the class scores: 'emotion' float (N, 7) ends in Gemm | 'gen"
    )
    assert str(error.value).endswith('say which: class_output="emotion" or "gender" or "none"')


def test_of_two_heads_the_one_with_evidence_is_taken():
    nodes = "age = Gemm(f, v) g = Gemm(f, h) gender = Softmax(g)"
    outputs = {"age": "float[N, 1]", "gender": "float[N, 2]"}
    assert choose(outputs, nodes, v=(8, 1), h=(8, 2))[:2] == ("gender", "probabilities")


def test_the_user_chooses_and_may_choose_none():
    heads = {"emotion": "float[N, 7]", "gender": "float[N, 2]"}
    nodes = "emotion = Gemm(f, v) gender = Gemm(f, h)"
    weights = {"v": (8, 7), "h": (8, 2)}
    assert choose(heads, nodes, Claims(name="gender"), **weights)[:2] == ("gender", "logits")
    assert choose(heads, nodes, Claims(name="none"), **weights)[:2] == (None, None)
    with pytest.raises(
        MasktoolError, match=r"no such output .class_output=.race..: expected one of 'emotion'.*or none"
    ):
        choose(heads, nodes, Claims(name="race"), **weights)


def test_logits_and_their_softmax_are_one_head():
    outputs = {"logits": "float[N, 5]", "probs": "float[N, 5]"}
    found = choose(outputs, "logits = Gemm(f, h) probs = Softmax(logits)", h=(8, 5))
    assert found[:2] == ("probs", "probabilities")


def test_a_lone_linear_end_is_taken_and_called_unknown():
    name, kind, evidence = choose({"y": "float[N, 10]"}, "y = Gemm(f, h)", h=(8, 10))
    assert (name, kind) == ("y", None)
    assert evidence[-1] == "assumed, not known: nothing says that these are class scores"


@pytest.mark.parametrize(
    ("name", "columns", "claims"),
    [
        ("logits", 5, Claims()),
        ("class_scores", 5, Claims()),
        ("y", 1000, Claims()),
        ("y", 5, Claims(n_classes=5, said_by="the hub's configuration X")),
        ("y", 5, Claims(labels=list("abcde"))),
        ("y", 5, Claims(kind="logits")),
        ("y", 5, Claims(name="y")),
    ],
)
def test_a_linear_end_with_evidence_is_logits(name: str, columns: int, claims: Claims):
    found = choose({name: f"float[N, {columns}]"}, f"{name} = Gemm(f, h)", claims, h=(8, columns))
    assert found[:2] == (name, "logits")


@pytest.mark.parametrize("name", ["landmarks", "boxes", "face_embedding", "keypoints_2d"])
def test_a_linear_end_whose_name_speaks_against_classes_is_none(name: str):
    found = choose({name: "float[N, 10]"}, f"{name} = Gemm(f, h)", h=(8, 10))
    assert found[:2] == (None, None)
    assert "its name says" in found.evidence[0]
    assert choose({name: "float[N, 10]"}, f"{name} = Gemm(f, h)", Claims(kind="logits"), h=(8, 10)).name == name


INNER = {
    "attention over places": (
        "N, 256",
        """flat = Constant<value_ints = [0, 8, -1]>() q = Reshape(r, flat) t = Transpose<perm = [0, 2, 1]>(q)
        sc = MatMul(t, v) last = Constant<value_ints = [-1]>() s = Squeeze(sc, last) inner = Softmax<axis = 1>(s)
        one = Constant<value_ints = [1]>() u = Unsqueeze(inner, one) ctx = MatMul(u, t) d = Squeeze(ctx, one)
        y = Gemm(d, h)""",
    ),
    "squeeze and excitation": (
        "N, 8, 1, 1",
        "g = Conv(p, k) inner = Sigmoid(g) b = Mul(r, inner) pp = GlobalAveragePool(b) d = Flatten(pp) y = Gemm(d, h)",
    ),
    "a gate beside the one that is used": (
        "N, 8, 1, 1",
        """g = Conv(p, k) inner = Sigmoid(g) gate = Sigmoid(g) b = Mul(r, gate) pp = GlobalAveragePool(b)
        d = Flatten(pp) y = Gemm(d, h)""",
    ),
    "a router of experts": (
        "N, 3", "g = Gemm(f, e) inner = Softmax(g) m = Gemm(inner, o) d = Mul(f, m) y = Gemm(d, h)",
    ),
    "weights written out": (
        "N, 3",
        """g = Gemm(f, e) one = Constant<value_ints = [1]>() n = Exp(g) t = ReduceSum(n, one) inner = Div(n, t)
        m = Gemm(inner, o) d = Mul(f, m) y = Gemm(d, h)""",
    ),
    "a second head that reads the first one's answer": (
        "N, 3", "g = Gemm(f, e) inner = Softmax(g) d = Concat<axis = 1>(f, inner) y = Gemm(d, hh)",
    ),
    "an expectation, without a linear layer": (
        "N, 8", "g = Gemm(f, sq) inner = Softmax(g) m = Mul(inner, ages) one = Constant<value_ints = [1]>() "
        "y = ReduceSum(m, one)",
    ),
}  # fmt: skip
"""By name: the shape of an inner softmax or sigmoid that is put out as well, and the nodes."""
WEIGHTS = {
    "v": (8, 1), "h": (8, 4), "k": (8, 8, 1, 1), "e": (8, 3), "o": (3, 8), "hh": (11, 4), "sq": (8, 8), "ages": (8,),
}  # fmt: skip


def inner_outputs(case: str) -> dict[str, str]:
    return {"inner": f"float[{INNER[case][0]}]", "y": "float[N, 1]" if "expectation" in case else "float[N, 4]"}


@pytest.mark.parametrize("case", INNER)
@pytest.mark.parametrize("order", [1, -1])
def test_an_inner_softmax_or_sigmoid_beside_what_is_computed_from_it_is_a_question(case: str, order: int):
    outputs = dict(list(inner_outputs(case).items())[::order])
    with pytest.raises(MasktoolError, match=r"2 outputs may hold the class scores: .*'inner' float") as error:
        choose(outputs, INNER[case][1], **WEIGHTS)
    assert str(error.value).endswith(
        "say which: class_output=" + " or ".join(f'"{each}"' for each in (*outputs, "none"))
    )
    assert choose(outputs, INNER[case][1], Claims(name="y"), **WEIGHTS).name == "y"
    assert choose(outputs, INNER[case][1], Claims(name="inner"), **WEIGHTS).kind in ("probabilities", "sigmoid")


@pytest.mark.parametrize("case", [each for each in INNER if "expectation" not in each])
def test_labels_kind_or_name_settle_which_of_the_two_it_is(case: str):
    outputs, nodes = inner_outputs(case), INNER[case][1]
    assert choose(outputs, nodes, Claims(labels=list("abcd")), **WEIGHTS)[:2] == ("y", "logits")
    assert choose(outputs, nodes, Claims(kind="logits"), **WEIGHTS)[:2] == ("y", "logits")
    renamed = {"probs" if name == "inner" else name: shape for name, shape in outputs.items()}
    assert choose(renamed, f"{nodes} probs = Identity(inner)", **WEIGHTS).name == "probs"


@pytest.mark.parametrize("name", ["z", "embedding"])
def test_a_gate_of_what_is_no_class_output_is_not_taken_for_the_classes(name: str):
    """A decoder's image, or an embedding: the gate's sigmoid alone would speak for classes."""
    gated = "g = Conv(p, k) gate = Sigmoid(g) b = Mul(r, gate)"
    end, shape = ("z = Conv(b, k)", "N, 8, 16, 16")
    if name == "embedding":
        end, shape = "pp = GlobalAveragePool(b) d = Flatten(pp) embedding = Gemm(d, h)", "N, 4"
    outputs = {"gate": "float[N, 8, 1, 1]", name: f"float[{shape}]"}
    found = choose(outputs, f"{gated} {end}", k=(8, 8, 1, 1), h=(8, 4))
    assert found[:2] == (None, None)
    assert f"{name!r} is computed from it through a linear layer" in found.evidence[0]
    named = choose(outputs, f"{gated} {end}", Claims(labels=list("abcdefgh")), k=(8, 8, 1, 1), h=(8, 4))
    assert named[:2] == ("gate", "sigmoid")


def test_scores_put_together_from_inner_shares_are_the_last_ones():
    nodes = """g = Gemm(f, h) a = Softmax(g) u = Gemm(f, k) b = Softmax(u) s = Add(a, b)
        half = Constant<value_float = 0.5>() y = Mul(s, half)"""
    outputs = dict.fromkeys(("a", "b", "y"), "float[N, 4]")
    assert choose(outputs, nodes, Claims(labels=list("abcd")), h=(8, 4), k=(8, 4)).name == "y"


UNIT = {
    "LpNormalization": "y = LpNormalization<axis = 1, p = 2>(z)",
    "torch's normalize": """one = Constant<value_ints = [1]>() n = ReduceL2<keepdims = 1>(z, one)
        least = Constant<value_float = 1e-12>() k = Clip(n, least) s = Shape(z) e = Expand(k, s) y = Div(z, e)""",
    "written out": """one = Constant<value_ints = [1]>() q = Mul(z, z) t = ReduceSum<keepdims = 1>(q, one)
        n = Sqrt(t) y = Div(z, n)""",
}


@pytest.mark.parametrize("nodes", UNIT.values(), ids=UNIT)
def test_a_vector_of_unit_length_is_an_embedding(nodes: str):
    found = choose({"y": "float[N, 10]"}, f"z = Gemm(f, h) {nodes}", h=(8, 10))
    assert found[:2] == (None, None)
    assert "of unit length (L2 norm)" in found.evidence[0]


SELECTED = {
    "TopK": "k = Constant<value_ints = [3]>() z = Gemm(f, h) y, i = TopK(z, k)",
    "TopK's indices": "k = Constant<value_ints = [3]>() z = Gemm(f, h) v, i = TopK(z, k) y = Cast<to = 1>(i)",
    "softmax of TopK": "k = Constant<value_ints = [3]>() z = Gemm(f, h) v, i = TopK(z, k) y = Softmax(v)",
    "ArgMax": "z = Gemm(f, h) i = ArgMax<axis = 1, keepdims = 1>(z) y = Cast<to = 1>(i)",
    "a row by ArgMax": "z = Gemm(f, h) i = ArgMax<axis = 1, keepdims = 0>(z) y = Gather(z2, i)",
    "Hardmax": "z = Gemm(f, h) y = Hardmax(z)",
    "a comparison": "z = Gemm(f, h) t = Constant<value_float = 0.5>() b = Greater(z, t) y = Cast<to = 1>(b)",
    "1 or 0 by a comparison": """z = Gemm(f, h) t = Constant<value_float = 0.5>() b = Greater(z, t)
        one = Constant<value_float = 1.0>() zero = Constant<value_float = 0.0>() y = Where(b, one, zero)""",
    "TopK, then Relu": "k = Constant<value_ints = [3]>() z = Gemm(f, h) v, i = TopK(z, k) y = Relu(v)",
    "the root of the power of TopK": """k = Constant<value_ints = [3]>() z = Gemm(f, h) v, i = TopK(z, k) e = Exp(v)
        y = Sqrt(e)""",
    "TopK, normalised": "k = Constant<value_ints = [3]>() z = Gemm(f, h) v, i = TopK(z, k) y = LogSoftmax(v)",
    "ArgMax and ArgMin": """z = Gemm(f, h) i = ArgMax<axis = 1, keepdims = 1>(z) j = ArgMin<axis = 1, keepdims = 1>(z)
        n = Add(i, j) y = Cast<to = 1>(n)""",
    "thresholds passed": """z = Gemm(f, h) t = Constant<value_float = 0.5>() b = Greater(z, t) n = Cast<to = 1>(b)
        l = Less(z, t) m = Cast<to = 1>(l) d = Sub(n, m) y = Abs(d)""",
    "one more than ArgMax": """z = Gemm(f, h) i = ArgMax<axis = 1, keepdims = 1>(z) q = Cast<to = 1>(i)
        one = Constant<value_float = 1.0>() y = Add(q, one)""",
}


@pytest.mark.parametrize("nodes", SELECTED.values(), ids=SELECTED)
def test_what_an_operator_selects_is_never_a_class_score(nodes: str):
    outputs = {"y": "float[N, 3]"}
    assert choose(outputs, nodes, h=(8, 10), z2=(10, 3))[:2] == (None, None)
    with pytest.raises(MasktoolError, match=r"not one score per class .class_output=.y..: what \w+ selects"):
        choose(outputs, nodes, Claims(name="y"), h=(8, 10), z2=(10, 3))


def test_scores_beside_a_selection_are_scores():
    nodes = """z = Gemm(f, h) i = ArgMax<axis = 1, keepdims = 1>(z) q = Cast<to = 1>(i) u = Gemm(f, v) y = Add(u, q)"""
    assert choose({"y": "float[N, 3]"}, nodes, h=(8, 10), v=(8, 3)).name == "y"


def test_scores_that_a_condition_chooses_between_are_scores():
    nodes = "z = Gemm(f, h) u = Gemm(f, v) t = Constant<value_float = 0.5>() b = Greater(z, t) y = Where(b, z, u)"
    assert choose({"y": "float[N, 3]"}, nodes, h=(8, 3), v=(8, 3)).name == "y"


def test_a_selection_beside_scores_leaves_the_scores():
    nodes = "k = Constant<value_ints = [3]>() logits = Gemm(f, h) best, i = TopK(logits, k)"
    assert choose({"best": "float[N, 3]", "logits": "float[N, 10]"}, nodes, h=(8, 10)).name == "logits"


def test_a_head_put_together_from_boxes_and_scores_is_none():
    nodes = "a = Gemm(f, h) s = Sigmoid(a) b = Gemm(f, v) y = Concat<axis = 1>(b, s)"
    found = choose({"y": "float[N, 9]"}, nodes, h=(8, 5), v=(8, 4))
    assert found[:2] == (None, None)
    assert "put together from parts that end in Sigmoid, a linear layer" in found.evidence[0]


def test_detections_of_rank_three_are_none():
    nodes = "z = Gemm(f, h) s = Constant<value_ints = [-1, 6, 85]>() y = Reshape(z, s)"
    assert choose({"y": "float[N, 6, 85]"}, nodes, h=(8, 510))[:2] == (None, None)


@pytest.mark.parametrize(
    ("shape", "nodes", "kind"),
    [
        ("N, 2", "z = Gemm(f, h) y = Softmax(z)", "probabilities"),
        ("N, 2", "z = Gemm(f, h) y = LogSoftmax(z)", "logits"),
        ("N, 2", "z = Gemm(f, h) s = Softmax(z) y = Identity(s)", "probabilities"),
        ("N, 2", "z = Gemm(f, h) e = Exp(z) a = Constant<value_ints = [1]>() t = ReduceSum(e, a) y = Div(e, t)",
         "probabilities"),
        ("N, 2", "z = Gemm(f, h) y = Sigmoid(z)", "sigmoid"),
        ("N, 2", "z = Gemm(f, h) y = Tanh(z)", None),
        ("N, 1", "z = Gemm(f, v) y = Sigmoid(z)", "binary-probability"),
        ("N", "z = Gemm(f, v) s = Sigmoid(z) a = Constant<value_ints = [1]>() y = Squeeze(s, a)", "binary-probability"),
        ("N, 1", "y = Gemm(f, v)", None),
        ("N, 2, 1, 1", "z = Conv(p, k) y = Softmax<axis = 1>(z)", "probabilities"),
        ("N, 2, 1, 1", "z = Conv(p, k) y = Softmax<axis = -1>(z)", None),  # each alone: 1
        ("N, 1", "z = Gemm(f, v) y = Softmax(z)", None),
    ],
)  # fmt: skip
def test_the_kind_is_read_off_the_end(shape: str, nodes: str, kind: str | None):
    found = choose({"y": f"float[{shape}]"}, nodes, h=(8, 2), v=(8, 1), k=(2, 8, 1, 1))
    assert found[:2] == ("y", kind)


ONE = "u = Constant<value_float = 1.0>() a1 = Constant<value_ints = [1]>() a0 = Constant<value_ints = [0]>() "
CLIP = "lo = Constant<value_float = 1e-7>() hi = Constant<value_float = 0.9999999>() "
ENDS = {
    "softmax, clipped": ("s = Softmax(z) y = Clip(s, lo, hi)", "probabilities"),
    "sigmoid, clipped": ("s = Sigmoid(z) y = Clip(s, lo, hi)", "sigmoid"),
    "exp of log-softmax": ("s = LogSoftmax(z) y = Exp(s)", "probabilities"),
    "log of softmax": ("s = Softmax(z) y = Log(s)", "logits"),
    "log-softmax, clipped": ("s = LogSoftmax(z) y = Clip(s, lo, hi)", None),
    "softmax written out, shifted": (
        "m = ReduceMax<keepdims = 1>(z, a1) d = Sub(z, m) e = Exp(d) t = ReduceSum<keepdims = 1>(e, a1) y = Div(e, t)",
        "probabilities",
    ),
    "softmax written out, by a reciprocal": (
        "e = Exp(z) t = ReduceSum<keepdims = 1>(e, a1) q = Add(t, lo) r1 = Reciprocal(q) y = Mul(e, r1)",
        "probabilities",
    ),
    "softmax written out, the exponential twice": (
        "e = Exp(z) e2 = Exp(z) t = ReduceSum<keepdims = 1>(e2, a1) y = Div(e, t)", "probabilities",
    ),
    "softmax of columns that stand first": (
        "n = Transpose<perm = [1, 0]>(z) s = Softmax<axis = 0>(n) y = Transpose<perm = [1, 0]>(s)", "probabilities",
    ),
    "softmax over the images": ("y = Softmax<axis = 0>(z)", None),
    "log-softmax over the images": ("y = LogSoftmax<axis = 0>(z)", None),
    "softmax over the images, turned": ("n = Transpose<perm = [1, 0]>(z) s = Softmax<axis = 1>(n) "
        "y = Transpose<perm = [1, 0]>(s)", None),
    "softmax over the images, written out": (
        "e = Exp(z) t = ReduceSum<keepdims = 1>(e, a0) y = Div(e, t)", None,
    ),
    "softmax over all, written out": ("e = Exp(z) t = ReduceSum<keepdims = 1>(e) y = Div(e, t)", None),
    "rates": ("e = Exp(z) k = Constant<value_float = 10.0>() y = Div(e, k)", None),
    "exponentials of one over another's sum": (
        "e = Exp(z) z2 = Neg(z) e2 = Exp(z2) t = ReduceSum<keepdims = 1>(e2, a1) y = Div(e, t)", None,
    ),
    "softmax with a background": (
        "e = Exp(z) t = ReduceSum<keepdims = 1>(e, a1) d = Add(t, u) y = Div(e, d)", None,
    ),
    "sigmoids, exp(z) / (1 + exp(z))": ("e = Exp(z) d = Add(e, u) y = Div(e, d)", "sigmoid"),
    "sigmoids, 1 / (1 + exp(-z))": ("n = Neg(z) e = Exp(n) d = Add(u, e) y = Div(u, d)", "sigmoid"),
    "sigmoids by a reciprocal": ("n = Neg(z) e = Exp(n) d = Add(u, e) y = Reciprocal(d)", "sigmoid"),
    "evidence": ("s = Softplus(z) y = Add(s, u)", None),
    "one less than evidence": ("s = Exp(z) y = Sub(s, u)", None),
    "a constant over scores": ("y = Div(u, z)", None),
    "scores over a constant": ("k = Constant<value_float = 10.0>() y = Div(z, k)", "logits"),
    "scores turned round": ("y = Sub(u, z)", "logits"),
    "scores and a rate": ("s = Softplus(f4) y = Add(z, s)", None),
    "a mean of tangents": ("s = Tanh(z) t = Tanh(f4) y = Add(s, t)", None),
}  # fmt: skip
"""By name: nodes behind scores z (N, 4), and the kind with four labels."""


@pytest.mark.parametrize("count", ["N", "4"])
@pytest.mark.parametrize("name", ENDS)
def test_the_kind_of_an_end_that_is_written_out(name: str, count: str):
    nodes, kind = ENDS[name]
    model = network({"y": "float[N, 4]"}, f"{ONE} {CLIP} z = Gemm(f, h) f4 = Gemm(f, v) {nodes}", h=(8, 4), v=(8, 4))
    if count == "4":  # as many images as columns
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 4
    model = onnx.shape_inference.infer_shapes(model)
    found = choose_class_output(onnx_ir.from_proto(model), Claims(labels=list("abcd")))
    assert (found.name, found.kind) == ("y", kind)
    unlabelled = choose_class_output(onnx_ir.from_proto(model))
    assert unlabelled.kind == (None if "scores" in name else kind)


@pytest.mark.parametrize(
    "name",
    [
        "softmax, clipped", "sigmoid, clipped", "exp of log-softmax", "softmax written out, shifted",
        "softmax over the images", "sigmoids, exp(z) / (1 + exp(z))", "sigmoids, 1 / (1 + exp(-z))",
    ],
)  # fmt: skip
def test_a_softmax_is_never_applied_twice(name: str):
    nodes = f"{ONE} {CLIP} z = Gemm(f, h) {ENDS[name][0]}"
    with pytest.raises(MasktoolError, match=r"the graph says otherwise .output_kind=.logits..: expected .*'y', which"):
        choose({"y": "float[N, 4]"}, nodes, Claims(kind="logits"), h=(8, 4))


@pytest.mark.parametrize("order", ["n, p1", "p1, n"])
@pytest.mark.parametrize("sigmoid", ["p1 = Sigmoid(z)", "s = Sigmoid(z) p1 = Clip(s, lo, hi)"])
def test_a_probability_beside_its_complement_are_two_classes(order: str, sigmoid: str):
    nodes = f"{ONE} {CLIP} z = Gemm(f, h) {sigmoid} n = Sub(u, p1) y = Concat<axis = 1>({order})"
    assert choose({"y": "float[N, 2]"}, nodes, h=(8, 1)) == (
        "y", "probabilities", ("ends in Concat", "p and 1 - p of one sigmoid in its two columns"),
    )  # fmt: skip
    other = nodes.replace("n = Sub(u, p1)", "w1 = Gemm(f, v) q = Sigmoid(w1) n = Sub(u, q)")
    assert choose({"y": "float[N, 2]"}, other, h=(8, 1), v=(8, 1)).kind is None  # of two sigmoids they are none


ENSEMBLES = {
    "sum": "y = Add(s, t)",
    "half the sum": "h2 = Constant<value_float = 0.5>() q = Add(s, t) y = Mul(q, h2)",
    "mean": """a = Constant<value_ints = [1]>() j = Unsqueeze(s, a) k = Unsqueeze(t, a) q = Concat<axis = 1>(j, k)
        y = ReduceMean<keepdims = 0>(q, a)""",
}


@pytest.mark.parametrize("nodes", ENSEMBLES.values(), ids=ENSEMBLES)
def test_a_mean_of_probabilities_is_not_called_logits(nodes: str):
    """Labels say that they are classes; a softmax of it would be a second one."""
    heads = "z = Gemm(f, h) s = Softmax(z) u = Gemm(f, v) t = Softmax(u)"
    found = choose({"y": "float[N, 3]"}, f"{heads} {nodes}", Claims(labels=list("abc")), h=(8, 3), v=(8, 3))
    assert found[:2] == ("y", None)
    assert found.evidence[-1] == "what the values are is not known"
    logits = heads.replace("Softmax", "Identity")
    of_logits = choose({"y": "float[N, 3]"}, f"{logits} {nodes}", Claims(labels=list("abc")), h=(8, 3), v=(8, 3))
    assert of_logits.kind == "logits"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"a": "N, 10"}, "a"),
        ({"a": "N, 10, 1, 1"}, "a"),
        ({"map": "N, 21, 8, 8", "a": "N, 10"}, "a"),
        ({"anchors": "N, 1600, 1"}, None),
        ({"map": "N, 21, 8, 8"}, None),
        ({"flat": "N"}, None),
    ],
)
def test_shapes_of_class_outputs(shapes: dict[str, str], expected: str | None):
    outputs = ", ".join(f"float[{shape}] {name}" for name, shape in shapes.items())
    nodes = " ".join(f"{name} = Relu(image)" for name in shapes)
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 8, 8] image) => ({outputs}) {{ {nodes} }}'
    assert choose_class_output(onnx_ir.from_proto(onnx.parser.parse_model(text))).name == expected


@pytest.mark.parametrize(
    ("end", "kind", "expected"),
    [
        ("Softmax", "logits", "probabilities"),
        ("LogSoftmax", "probabilities", "logits"),
        ("Sigmoid", "logits", "sigmoid"),
        ("Sigmoid", "probabilities", "sigmoid"),
    ],
)
def test_a_kind_that_the_graph_contradicts_is_refused(end: str, kind, expected: str):
    with pytest.raises(MasktoolError, match=rf"the graph says otherwise .output_kind=.{kind}..: expected {expected}"):
        choose({"y": "float[N, 4]"}, f"z = Gemm(f, h) y = {end}(z)", Claims(kind=kind), h=(8, 4))


# On the command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save("picture.png")
    Path("pre.json").write_text('{"size": [16, 16], "resize": "exact"}')
    return tmp_path


def save(outputs: dict[str, str], nodes: str, **weights: tuple[int, ...]) -> None:
    onnx.save(network(outputs, nodes, **weights), "model.onnx")


def test_a_question_on_the_command_line_is_answered_by_the_option_it_names(folder: Path, capsys):
    save({"a": "float[N, 4]", "b": "float[N, 5]"}, "a = Gemm(f, v) b = Gemm(f, h)", v=(8, 4), h=(8, 5))
    for command in (
        ["export", "model.onnx"],
        ["explain", "picture.png", "-m", "model.onnx", "--preprocess", "pre.json"],
    ):
        assert run(command) == 2
        assert "say which: --class-output a or b or none" in capsys.readouterr().err
    answer = ["--class-output", "b", "--output-kind", "logits"]
    assert run(["export", "model.onnx", "-o", "out.onnx", *answer]) == 0
    assert "output: 'b' holds logits\n" in capsys.readouterr().err
    with masktool.load("out.onnx") as session:
        assert session.metadata.class_output == "b"
        image = np.random.default_rng(2).standard_normal((1, 3, 16, 16)).astype(np.float32)
        np.testing.assert_allclose(session.scores(image).sum(), 1, rtol=1e-6)
    explained = ["explain", "picture.png", "-m", "model.onnx", "--preprocess", "pre.json", "--method", "occlusion"]
    assert run([*explained, *answer, "--json"]) == 0
    assert "probability" in json.loads(capsys.readouterr().out)["target"]


def test_an_assumption_is_told_everywhere(folder: Path, capsys):
    save({"y": "float[N, 10]"}, "y = Gemm(f, h)", h=(8, 10))
    assert run(["export", "model.onnx", "-o", "out.onnx", "--preprocess", "pre.json"]) == 0
    told = capsys.readouterr().err
    assert "output: 'y' is taken for the class scores; what it holds is not known" in told
    assert "missing: what output 'y' holds" in told
    assert run(["info", "out.onnx"]) == 0
    assert "assumed, not known: nothing says that these are class scores" in capsys.readouterr().out
    assert run(["explain", "picture.png", "-m", "out.onnx", "--method", "occlusion", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "score" in document["target"]
    assert any("that they are class scores is assumed" in note for note in document["notes"])


def test_evidence_is_kept_in_the_file(folder: Path):
    save({"y": "float[N, 10]"}, "z = Gemm(f, h) y = Softmax<axis = 1>(z)", h=(8, 10))
    metadata = masktool.export("model.onnx", "out.onnx").metadata
    with masktool.load("out.onnx") as session:
        assert session.metadata.output_evidence == metadata.output_evidence == (
            "ends in Softmax", "Softmax over all 10 columns",
        )  # fmt: skip


def test_the_top_of_a_detection_is_not_called_a_class(folder: Path, capsys):
    nodes = "z = Gemm(f, h) s = Constant<value_ints = [-1, 6, 85]>() y = Reshape(z, s)"
    save({"y": "float[N, 6, 85]"}, nodes, h=(8, 510))
    assert run(["export", "model.onnx", "-o", "out.onnx", "--preprocess", "pre.json"]) == 0
    assert "output: none holds class scores" in capsys.readouterr().err
    explain = ["explain", "picture.png", "-m", "out.onnx", "--method", "occlusion"]
    assert run([*explain, "--target", "top"]) == 2
    assert "the model has no class output to explain" in capsys.readouterr().err
    assert run([*explain, "--output", "y", "--target", "top", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "where some are coordinates, it may be one of them" in note


def test_torch_gives_no_evidence_by_the_name_that_masktool_chose(folder: Path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 10),
    )  # fmt: skip
    metadata = masktool.export(net.eval(), "out.onnx", input_size=(16, 16)).metadata
    assert (metadata.class_output, metadata.output_kind) == ("logits", None)
    labelled = masktool.export(net.eval(), "out.onnx", input_size=(16, 16), labels=[str(i) for i in range(10)]).metadata
    assert labelled.output_kind == "logits"
