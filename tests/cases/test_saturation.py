"""Where a probability is rounded to 0 or 1, or a gradient is 0 everywhere, it is said, and what helps is offered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.contract import Preprocessing
from masktool.errors import UnsupportedOperatorError
from masktool.runtime.scores import to_log_odds, to_probabilities

END = {"logits": "y = Identity(z)", "probabilities": "y = Softmax<axis = 1>(z)", "binary-probability": "y = Sigmoid(z)"}


def network(end: str, columns: int = 3, gain: float = 1.0, inside: str = "Relu") -> onnx.ModelProto:
    """A convolution, an activation, a mean and a linear layer whose scores a gain may drive into saturation."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3, 8, 8] x) => (float[N, {columns}] y) <float[4, 3, 3, 3] w, float[4, {columns}] h>
        {{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = {inside}(c) p = GlobalAveragePool(r) f = Flatten(p) z = Gemm(f, h)
        {end} }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, values in {
        "w": np.abs(rng.standard_normal((4, 3, 3, 3))),
        "h": gain * np.linspace(1, -1, columns) * np.ones((4, 1)),
    }.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(2).integers(60, 255, (16, 16, 3), np.uint8)).save("p.png")
    Path("pre.json").write_text('{"size": [8, 8], "resize": "exact"}')
    return tmp_path


OCCLUSION = ["--method", "occlusion", "--set", "sliding_window_shapes=3", "--set", "strides=2", "--json"]


def explain(capsys, *arguments: str) -> dict:
    assert run(["explain", "p.png", "-m", "out.onnx", *OCCLUSION, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_probability_of_one_is_said_and_log_odds_show_what_it_hides(kind, folder: Path, capsys):
    masktool.export(
        network(END[kind]), "out.onnx", output_kind=kind,
        preprocessing=Preprocessing(size=(8, 8), resize="exact"),
    )  # fmt: skip
    hidden = explain(capsys)
    assert hidden["target"]["probability"] == 1
    assert not np.any(hidden["model_attributions"])
    assert any("the probability is exactly 1" in note and "--score log-odds" in note for note in hidden["notes"])
    assert any("the map is the same everywhere" in note for note in hidden["notes"])
    shown = explain(capsys, "--score", "log-odds")
    assert shown["target"]["log-odds"] > 17
    assert np.ptp(shown["model_attributions"]) > 1e-3
    assert shown["notes"] == []
    assert shown["meaning"] == "drop in log-odds when hidden"
    assert shown["settings"]["score"] == "log-odds"


def test_a_sigmoid_in_the_graph_is_not_promised_what_it_cannot_give(folder: Path, capsys):
    masktool.export(
        network(END["binary-probability"], 1, gain=40.0), "out.onnx",
        preprocessing=Preprocessing(size=(8, 8), resize="exact"),
    )  # fmt: skip
    (note, flat) = explain(capsys)["notes"]
    assert "exported from in front of it" in note
    assert "--score" not in note
    assert "the same everywhere" in flat


def export(end: str, columns: int, gain: float, **options) -> None:
    preprocessing = Preprocessing(size=(8, 8), resize="exact")
    masktool.export(network(end, columns, gain), "out.onnx", preprocessing=preprocessing, **options)


@pytest.mark.parametrize("target", ["0", "2"])
def test_log_odds_are_not_offered_where_the_softmax_left_nothing_of_the_others(target: str, folder: Path, capsys):
    export(END["probabilities"], 3, 40.0)
    (note, flat) = explain(capsys, "--target", target)["notes"]
    assert f"the probability is exactly {1 if target == '0' else 0} in float32" in note
    assert "the graph takes its softmax itself: exported from in front of it" in note
    assert "--score" not in note
    assert "the same everywhere" in flat
    export(END["logits"], 3, 40.0, output_kind="logits")  # as the note says
    notes = explain(capsys, "--target", target)["notes"]
    assert any("--score log-odds" in note for note in notes)
    shown = explain(capsys, "--target", target, "--score", "log-odds")
    assert np.ptp(shown["model_attributions"]) > 1e-3


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("margin", [15.0, 15.9])
def test_a_probability_a_few_roundings_from_one_is_said(kind, margin: float, folder: Path, capsys):
    """The case near1: neither exactly 1 nor able to show what moves it."""
    export(END["logits"], 2, 1.0, output_kind="logits")
    whole = explain(capsys, "--score", "log-odds")["target"]["log-odds"]
    export(END[kind], 2, margin / whole, output_kind=kind)
    hidden = explain(capsys)
    assert any("within 16 roundings of 1" in note and "--score log-odds" in note for note in hidden["notes"])
    shown = explain(capsys, "--score", "log-odds")
    assert shown["target"]["log-odds"] == pytest.approx(margin, rel=1e-2)
    assert np.ptp(shown["model_attributions"]) > 1e-3
    assert shown["notes"] == []


def test_the_negative_class_of_a_sigmoid_has_log_odds_that_the_positive_one_has_not(folder: Path, capsys):
    export(END["logits"], 1, 1.0, output_kind="binary")
    logit = explain(capsys, "--target", "1", "--score", "log-odds")["target"]["log-odds"]
    export("e = Exp(z) u = Constant<value_float = 1.0>() d = Add(e, u) y = Reciprocal(d)", 1, 20 / logit)
    (note, *_) = explain(capsys, "--target", "0")["notes"]
    assert "--score log-odds" in note
    assert np.ptp(explain(capsys, "--target", "0", "--score", "log-odds")["model_attributions"]) > 1e-3


@pytest.mark.parametrize(("factor", "noise"), [(1e-8, True), (3e-5, False)])
def test_a_map_that_is_nothing_but_rounding_is_said(factor: float, noise: bool, folder: Path, capsys):
    end = f"k = Constant<value_float = {factor}>() s = Mul(z, k) o = Constant<value_float = 0.5>() y = Add(s, o)"
    export(end, 3, 1.0)
    found = explain(capsys)
    assert np.ptp(found["model_attributions"]) > 0
    assert any("no more than the rounding" in note for note in found["notes"]) == noise


def test_what_is_not_saturated_has_no_note(folder: Path, capsys):
    masktool.export(
        network(END["logits"], gain=0.02), "out.onnx", output_kind="logits",
        preprocessing=Preprocessing(size=(8, 8), resize="exact"),
    )  # fmt: skip
    assert explain(capsys)["notes"] == []


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_log_odds_against_exact_arithmetic(kind):
    from fractions import Fraction

    logits = np.array([[0.5, -1.25, 3.0], [40.0, 3.0, -2.0], [88.0, -5.0, 0.0]], np.float32)
    exact = []
    for row in logits.astype(np.float64):
        powers = [Fraction(float(np.exp(value - row.max()))) for value in row]
        exact.append([float(np.log(float(each / (sum(powers) - each)))) for each in powers])
    given = logits if kind == "logits" else to_probabilities(logits, "logits")
    tolerance = 1e-6 if kind == "logits" else 1e-5
    found = to_log_odds(given, kind)
    np.testing.assert_allclose(found[:2], np.array(exact)[:2], rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(found[2, 0], exact[2][0], rtol=1e-5)
    column = np.array([[-30.0], [0.5], [60.0]], np.float32)
    np.testing.assert_array_equal(to_log_odds(column, "binary"), np.concatenate([-column, column], axis=1))
    share = to_probabilities(column[1:2], "binary")[:, 1:]
    np.testing.assert_allclose(to_log_odds(share, "binary-probability"), [[-0.5, 0.5]], rtol=1e-5)


def test_log_odds_of_what_is_no_probability_are_refused(folder: Path):
    masktool.export(network(END["logits"]), "out.onnx", gradient="logit")
    image = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    with pytest.raises(MasktoolError, match="log-odds of scores of unknown kind; export with output_kind or labels"):
        masktool.explain("out.onnx", image, "occlusion", score="log-odds")
    with pytest.raises(MasktoolError, match=r"log-odds are of classes' scores .*Gradient.*leave the score out"):
        masktool.explain("out.onnx", image, "gradient", score="log-odds")
    with pytest.raises(MasktoolError, match=r"log-odds are of classes' scores under masks .output 'y'"):
        masktool.explain("out.onnx", image, "occlusion", 0, output="y", score="log-odds")


@pytest.mark.parametrize("flat", ["Sign", "Round", "Floor", "Ceil"])
def test_a_gradient_that_is_zero_everywhere_is_refused_by_name(flat: str, tmp_path: Path):
    model = network(END["logits"], inside=flat)
    next(node for node in model.graph.node if node.op_type == flat).name = "step"
    masktool.export(model, tmp_path / "m.onnx")
    with pytest.raises(
        UnsupportedOperatorError,
        match=rf"the gradient is 0 everywhere, because of 1 node: {flat}-\d+ .node 'step'.: flat",
    ):
        masktool.export(model, tmp_path / "m.onnx", gradient="logit")


def test_a_decision_on_the_path_is_refused_by_name(tmp_path: Path):
    table = ", ".join(f"{number}.0" for number in range(12))
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3, 8, 8] x) => (float[N, 2] logits)
        <float[3, 4] table = {{ {table} }}, float[4, 2] h = {{ {", ".join(table.split(", ")[:8])} }}>
        {{ r = GlobalAveragePool(x) p = Flatten(r) i = ArgMax<axis = 1, keepdims = 0>(p) e = Gather(table, i)
        logits = Gemm(e, h) }}"""
    model = onnx.parser.parse_model(text)
    with pytest.raises(
        UnsupportedOperatorError, match=r"the gradient is 0 everywhere, because of 1 node: ArgMax-.*: flat"
    ):
        masktool.export(model, tmp_path / "m.onnx", masking="fill", gradient="logit")


def test_a_flat_branch_beside_another_is_no_fault(tmp_path: Path):
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3, 8, 8] x) => (float[N, 3] y)
        { r = Relu(x) s = Sign(r) a = Add(r, s) p = GlobalAveragePool(a) y = Flatten(p) }"""
    masktool.export(onnx.parser.parse_model(text), tmp_path / "m.onnx", masking="fill", gradient="logit")
    with masktool.load(tmp_path / "m.onnx") as session:
        image = 0.1 + np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
        gradient = session.gradient(image, target=1).image
    np.testing.assert_allclose(gradient[0, 1], 1 / 64, rtol=1e-5)
    assert not gradient[0, [0, 2]].any()
