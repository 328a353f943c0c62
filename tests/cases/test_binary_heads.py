"""One column that tells two classes apart: which class is which, probabilities taken once, gradients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.contract import BINARY_KINDS, Metadata, OutputKind
from masktool.runtime.scores import to_log_odds, to_probabilities
from masktool.runtime.session import MaskedSession

ENDS = {
    "logit (N, 1)": ("binary", "N, 1", "y = Identity(z)"),
    "probability (N, 1)": ("binary-probability", "N, 1", "y = Sigmoid(z)"),
    "logit (N,)": ("binary", "N", "one = Constant<value_ints = [1]>() y = Squeeze(z, one)"),
    "probability (N,)": (
        "binary-probability", "N", "one = Constant<value_ints = [1]>() s = Sigmoid(z) y = Squeeze(s, one)",
    ),
    "probability written out": (
        "binary-probability", "N, 1",
        "m = Neg(z) e = Exp(m) u = Constant<value_float = 1.0>() d = Add(e, u) y = Reciprocal(d)",
    ),
    "probability exp(z) / (1 + exp(z))": (
        "binary-probability", "N, 1", "e = Exp(z) u = Constant<value_float = 1.0>() d = Add(e, u) y = Div(e, d)",
    ),
    "probability, clipped": (
        "binary-probability", "N, 1",
        "s = Sigmoid(z) lo = Constant<value_float = 1e-7>() hi = Constant<value_float = 0.9999999>() "
        "y = Clip(s, lo, hi)",
    ),
    "probability by a hyperbolic tangent": (
        "binary-probability", "N, 1",
        "half = Constant<value_float = 0.5>() q = Mul(z, half) t = Tanh(q) u = Mul(t, half) y = Add(u, half)",
    ),
    "probability, smoothed": (
        "binary-probability", "N, 1",
        "s = Sigmoid(z) k = Constant<value_float = 0.9>() l = Constant<value_float = 0.05>() m = Mul(s, k) "
        "y = Add(m, l)",
    ),
}  # fmt: skip
"""By name: the kind, the shape, and the nodes that make the output of the logit z."""
STEP = 1e-2
"""Of central differences in float32: a smaller one is lost in rounding."""


class Head(NamedTuple):
    """What an end makes of the network: its kind, the plain model, and a session of its file with gradients."""

    kind: OutputKind
    model: onnx.ModelProto
    session: MaskedSession


def network(shape: str, nodes: str) -> onnx.ModelProto:
    """A convolution, a smooth activation, a mean and one logit z, made positive by its bias."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3, 8, 8] x) => (float[{shape}] y) <float[4, 3, 3, 3] w, float[4, 1] h, float[1] b>
        {{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Tanh(c) p = GlobalAveragePool(r) f = Flatten(p) z = Gemm(f, h, b)
        {nodes} }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "h": 3 * rng.standard_normal((4, 1)), "b": np.array([1.5])}
    del model.graph.initializer[:]
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return model


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)


def positive(model: onnx.ModelProto, kind: OutputKind) -> np.ndarray:
    """The positive class's probability by ONNX Runtime on the plain model, in double precision behind a logit."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": images()})
    column = found.reshape(-1).astype(np.float64)
    return 1 / (1 + np.exp(-column)) if kind == "binary" else column


@pytest.mark.parametrize(("kind", "shape", "nodes"), ENDS.values(), ids=ENDS)
def test_scores_are_the_two_classes(kind: OutputKind, shape: str, nodes: str, tmp_path: Path):
    model = network(shape, nodes)
    masktool.export(model, tmp_path / "m.onnx", output_kind=kind)
    with MaskedSession(tmp_path / "m.onnx") as session:
        assert session.n_classes == 2
        scores = session.scores(images())
    expected = positive(model, kind)
    np.testing.assert_allclose(scores, np.stack([1 - expected, expected], axis=1), atol=1e-6)


@pytest.fixture(scope="module", params=ENDS.values(), ids=ENDS)
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Each end once, exported with gradients: whatever is asked of it afterwards changes nothing in the file."""
    kind, shape, nodes = request.param
    model, path = network(shape, nodes), tmp_path_factory.mktemp("head") / "m.onnx"
    masktool.export(model, path, output_kind=kind, gradient="logit")
    with MaskedSession(path) as session:
        yield Head(kind, model, session)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("loss", ["logit", "log-softmax", "softmax", "entropy"])
def test_gradients_against_central_differences(head: Head, target: int, loss):
    """The objective is that of the published losses; its gradient that of the objective, differenced."""
    found = head.session.gradient(images(), target=target, loss=loss)
    direction = np.sign(found.image)
    ends = [
        head.session.gradient(images() + sign * np.float32(STEP) * direction, target=target, loss=loss).objective
        for sign in (1, -1)
    ]
    share = positive(head.model, head.kind)
    shares = {0: 1 - share, 1: share}[target]
    objectives = {
        "logit": np.log(share / (1 - share)) if target else np.zeros_like(share),
        "log-softmax": np.log(shares),
        "softmax": shares,
        "entropy": -(share * np.log(share) + (1 - share) * np.log(1 - share)),
    }
    np.testing.assert_allclose(found.objective, objectives[loss], atol=2e-5)
    slope = (ends[0] - ends[1]) / (2 * STEP)
    np.testing.assert_allclose(slope, np.abs(found.image).sum((1, 2, 3)), rtol=2e-2, atol=1e-4)


def test_a_sigmoid_at_the_end_makes_it_a_probability(tmp_path: Path):
    model = network("N, 1", "y = Sigmoid(z)")
    assert masktool.export(model, tmp_path / "m.onnx").metadata.output_kind == "binary-probability"
    with pytest.raises(MasktoolError) as error:
        masktool.export(model, tmp_path / "m.onnx", output_kind="binary")
    assert str(error.value) == (
        "the graph says otherwise (output_kind=\"binary\"): expected binary-probability or sigmoid, got 'y', which "
        "ends in Sigmoid; leave output_kind out"
    )


def test_several_columns_are_not_binary(tmp_path: Path):
    model = network("N, 2", "two = Constant<value_ints = [1, 2]>() y = Tile(z, two)")
    with pytest.raises(MasktoolError, match=r"no output is of that kind .output_kind=.binary..: expected one column"):
        masktool.export(model, tmp_path / "m.onnx", output_kind="binary")


@pytest.mark.parametrize("kind", sorted(BINARY_KINDS))
def test_one_label_names_the_positive_class(kind: OutputKind, tmp_path: Path):
    nodes = "y = Identity(z)" if kind == "binary" else "y = Sigmoid(z)"
    model = network("N, 1", nodes)
    one = masktool.export(model, tmp_path / "one.onnx", output_kind=kind, labels=["tumour"]).metadata
    assert one.labels == ("not tumour", "tumour")
    two = masktool.export(model, tmp_path / "two.onnx", output_kind=kind, labels=["healthy", "tumour"]).metadata
    assert two.labels == ("healthy", "tumour")
    with pytest.raises(MasktoolError, match="the labels do not fit the model: expected 1 or 2 names, got 3 names"):
        masktool.export(model, tmp_path / "three.onnx", output_kind=kind, labels=["a", "b", "c"])


def test_two_labels_make_one_linear_column_binary(tmp_path: Path):
    model = network("N, 1", "y = Identity(z)")
    assert masktool.export(model, tmp_path / "m.onnx", labels=["healthy", "tumour"]).metadata.output_kind == "binary"
    assert (
        masktool.export(model, tmp_path / "m.onnx", labels=["age"]).metadata.output_kind is None
    )  # perhaps a regression


def test_a_file_written_before_with_one_label_is_put_right(tmp_path: Path):
    metadata = masktool.export(network("N, 1", "y = Identity(z)"), tmp_path / "m.onnx", output_kind="binary").metadata
    properties = metadata.to_properties() | {"masktool.labels": '["tumour"]'}
    assert Metadata.from_properties(properties).labels == ("not tumour", "tumour")


@pytest.mark.parametrize("kind", sorted(BINARY_KINDS))
def test_label_and_map_are_those_of_the_class(kind: OutputKind, tmp_path: Path, monkeypatch, capsys):
    """The case binary_label_inverted: the positive class's map is that of p, the negative one's its mirror image."""
    monkeypatch.chdir(tmp_path)
    onnx.save(network("N, 1", "y = Identity(z)" if kind == "binary" else "y = Sigmoid(z)"), "model.onnx")
    Path("pre.json").write_text('{"size": [8, 8], "resize": "exact"}')
    Path("two.txt").write_text("healthy\ntumour\n")
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (20, 20, 3), np.uint8)).save("p.png")
    export = ["export", "model.onnx", "-o", "out.onnx", "--preprocess", "pre.json", "--output-kind", kind]
    assert run([*export, "--labels", "two.txt"]) == 0
    capsys.readouterr()
    documents = {}
    for target in ("healthy", "tumour", "0", "1"):
        explain = ["explain", "p.png", "-m", "out.onnx", "--method", "occlusion", "--target", target, "--json"]
        assert run([*explain, "--set", "sliding_window_shapes=3", "--set", "strides=2"]) == 0
        documents[target] = json.loads(capsys.readouterr().out)
    by_name = {name: documents[name] for name in ("healthy", "tumour")}
    assert {name: each["target"]["index"] for name, each in by_name.items()} == {"healthy": 0, "tumour": 1}
    chances = {name: each["target"]["probability"] for name, each in by_name.items()}
    assert chances["healthy"] + chances["tumour"] == pytest.approx(1, abs=1e-5)
    prepared = np.asarray(Image.open("p.png").resize((8, 8), Image.Resampling.BILINEAR), np.float32) / 255
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": prepared.transpose(2, 0, 1)[None]})
    raw = float(found.item())
    expected = 1 / (1 + np.exp(-raw)) if kind == "binary" else raw
    assert chances["tumour"] == pytest.approx(expected, abs=1e-4)
    maps = {name: np.array(each["model_attributions"]) for name, each in by_name.items()}
    np.testing.assert_allclose(maps["healthy"], -maps["tumour"], atol=1e-6)
    assert np.abs(maps["tumour"]).max() > 0
    assert [documents[index]["target"]["label"] for index in "01"] == ["healthy", "tumour"]


@pytest.mark.parametrize("kind", sorted(BINARY_KINDS))
def test_more_than_one_column_is_refused(kind: OutputKind):
    with pytest.raises(MasktoolError, match="binary output of the wrong shape"):
        to_probabilities(np.zeros((2, 3), np.float32), kind)


BOUNDS = "lo = Constant<value_float = -20.0>() hi = Constant<value_float = 20.0>()"
NOT_BINARY = {
    "a sigmoid that the user calls one": ("y = Sigmoid(z)", "sigmoid", "binary-probability"),
    "a hard sigmoid": ("y = HardSigmoid(z)", None, "binary-probability"),
    "a hyperbolic tangent": ("y = Tanh(z)", None, "binary or binary-probability"),
    "a clipped logit": (f"{BOUNDS} y = Clip(z, lo, hi)", None, "binary or binary-probability"),
    "a rate": ("y = Softplus(z)", None, "binary or binary-probability"),
}
"""By name: the nodes of one column of which two labels cannot be those, the kind by the user, and what may be said."""


@pytest.mark.parametrize(("nodes", "kind", "expected"), NOT_BINARY.values(), ids=NOT_BINARY)
def test_two_labels_of_a_column_that_is_not_binary_are_a_question(nodes: str, kind, expected: str, tmp_path: Path):
    """Class 0 of such a column is the positive one: the first label would be the wrong one, the second none at all."""
    model = network("N, 1", nodes)
    with pytest.raises(MasktoolError) as error:
        masktool.export(model, tmp_path / "m.onnx", output_kind=kind, labels=["healthy", "tumour"])
    assert str(error.value).startswith("two labels for one column are its negative and its positive class: expected")
    kinds = expected.replace(" or ", '" or "')
    assert f'say output_kind="{kinds}", or give one label' in str(error.value)
    assert not (tmp_path / "m.onnx").exists()
    for said in expected.split(" or "):
        masktool.export(model, tmp_path / "m.onnx", output_kind=said, labels=["healthy", "tumour"])
        with MaskedSession(tmp_path / "m.onnx") as session:
            assert session.scores(images()).shape == (3, len(session.metadata.labels))
    one = masktool.export(model, tmp_path / "m.onnx", output_kind=kind, labels=["tumour"]).metadata
    assert one.labels == ("tumour",)


SHARES = {name: nodes for name, (kind, shape, nodes) in ENDS.items() if kind == "binary-probability" and shape != "N"}
SHARES |= {
    "1 / (1 + exp(-z))": "m = Neg(z) e = Exp(m) u = Constant<value_float = 1.0>() d = Add(u, e) y = Div(u, d)",
    "a product with the reciprocal": """e = Exp(z) u = Constant<value_float = 1.0>() d = Add(u, e) q = Reciprocal(d)
        y = Mul(e, q)""",
    "a mean of two": """s = Sigmoid(z) m = Neg(z) t = Sigmoid(m) a = Add(s, t) h2 = Constant<value_float = 0.5>()
        y = Mul(a, h2)""",
    "the other class": "s = Sigmoid(z) u = Constant<value_float = 1.0>() y = Sub(u, s)",
    "a hard sigmoid": "y = HardSigmoid(z)",
}
KNOWN_SIGMOIDS = {
    "probability (N, 1)", "probability written out", "probability exp(z) / (1 + exp(z))", "probability, clipped",
    "1 / (1 + exp(-z))", "a product with the reciprocal",
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_a_sigmoid_is_never_applied_twice(name: str, tmp_path: Path):
    """However it is written: what lies between 0 and 1 is no logit, whoever says so."""
    model = network("N, 1", SHARES[name])
    with pytest.raises(MasktoolError) as error:
        masktool.export(model, tmp_path / "m.onnx", output_kind="binary")
    assert str(error.value).startswith(
        "the graph says otherwise (output_kind=\"binary\"): expected binary-probability or sigmoid, got 'y', which "
    )
    assert ("lies between 0 and 1" in str(error.value)) == (name != "probability (N, 1)")
    if name in KNOWN_SIGMOIDS:
        metadata = masktool.export(model, tmp_path / "m.onnx", labels=["healthy", "tumour"]).metadata
        assert metadata.output_kind == "binary-probability"
        with MaskedSession(tmp_path / "m.onnx") as session:
            np.testing.assert_allclose(session.scores(images())[:, 1], positive(model, "binary-probability"), atol=1e-6)
    else:
        with pytest.raises(MasktoolError, match=r"say output_kind=.binary-probability., or give one label"):
            masktool.export(model, tmp_path / "m.onnx", labels=["healthy", "tumour"])


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("labels", [None, ["tumour"], ["healthy", "tumour"]])
@pytest.mark.parametrize("shape", ["N, 1", "N"])
def test_one_column_holds_no_classes_that_exclude_one_another(kind: OutputKind, labels, shape: str, tmp_path: Path):
    nodes = "one = Constant<value_ints = [1]>() y = Squeeze(z, one)" if shape == "N" else "y = Identity(z)"
    with pytest.raises(
        MasktoolError, match=rf"no output is of that kind .output_kind=.{kind}..: expected several columns, got 'y'"
    ):
        masktool.export(network(shape, nodes), tmp_path / "m.onnx", output_kind=kind, labels=labels)


@pytest.mark.parametrize("target", [None, 0, 1, "healthy", "tumour"])
def test_a_file_written_before_with_two_labels_for_one_score_is_refused(target, tmp_path: Path):
    masktool.export(network("N, 1", "y = Sigmoid(z)"), tmp_path / "m.onnx", output_kind="sigmoid", labels=["tumour"])
    written = onnx.load(tmp_path / "m.onnx")
    next(each for each in written.metadata_props if each.key == "masktool.labels").value = '["healthy", "tumour"]'
    onnx.save(written, tmp_path / "m.onnx")
    with pytest.raises(MasktoolError, match=r"labels do not fit the scores .*: expected 1, got 2: 'healthy', 'tumour'"):
        masktool.explain(tmp_path / "m.onnx", images(1)[0], "occlusion", target)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_log_odds_of_one_class_alone_are_refused(kind: OutputKind):
    with pytest.raises(MasktoolError, match="log-odds of one class alone: expected at least 2 columns, got 1"):
        to_log_odds(np.array([[2.5]], np.float32), kind)
