"""``masktool gradient``: gradients of any number of any graph, against central differences in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.any_networks import KINDS, perceptron, quantised, recurrent, siamese, write_network
from onnx.reference import ReferenceEvaluator
from ops.float64_operators import OPERATORS
from ops.gradient_models import to_double

import masktool
from masktool import MasktoolError, UnsupportedOperatorError
from masktool.cli import run
from masktool.exporters.derivatives import float64, measurement, numpy_operators
from masktool.exporters.derivatives.write import DERIVATIVE_PROPERTY, read_scalar
from masktool.ops.gradients import GRADIENT_RULES

STEP = 1e-6
TOLERANCE = 1e-4
"""Relative to the length of the gradient: float32 against float64."""


def open_file(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def draw_inputs(model: onnx.ModelProto, rows: int = 3) -> dict[str, np.ndarray]:
    """Returns values for all inputs: numbers of floats, and small integers."""
    rng, found = np.random.default_rng(1), {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value or rows for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        found[value.name] = rng.integers(0, 9, shape) if dtype.kind == "i" else rng.standard_normal(shape).astype(dtype)
    return found


def open_exact(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Returns what runs a model in float64, by operators that are compared with ONNX Runtime below."""
    operators = {each.__name__: each for each in (*OPERATORS, *numpy_operators.OPERATORS)}
    return ReferenceEvaluator(to_double(model), new_ops=list(operators.values()))


def check_gradients(model: onnx.ModelProto, path: Path, written: masktool.Derivative) -> None:
    """Compares every gradient of a file with central differences of the plain network, along random directions."""
    plain, feed, rng = open_exact(model), draw_inputs(model), np.random.default_rng(2)
    exact = {name: each.astype(np.float64) if each.dtype.kind == "f" else each for name, each in feed.items()}
    file = open_file(path)
    names = [each.name for each in file.get_outputs()]
    weights = {}
    if written.weights is not None:
        weights[written.weights] = rng.standard_normal(plain.run([written.output], exact)[0].shape).astype(np.float32)
    found = dict(zip(names, file.run(None, feed | weights), strict=True))

    def numbers(point: dict[str, np.ndarray]) -> np.ndarray:
        (output,) = plain.run([written.output], point)
        rows = output if written.batched else output[None]
        if isinstance(written.target, tuple):
            return rows[(slice(None), *written.target)]
        rows = rows.reshape(len(rows), -1)
        weighed = rows * weights[written.weights].reshape(rows.shape) if weights else rows
        return weighed.max(axis=1) if written.target == "top" else weighed.sum(axis=1)

    np.testing.assert_allclose(found[written.objective].ravel(), numbers(exact), rtol=1e-4, atol=1e-5)
    for name, output in written.gradients.items():
        gradient = found[output].astype(np.float64)
        assert gradient.shape == feed[name].shape
        for _ in range(3):
            direction = rng.standard_normal(gradient.shape)
            ahead, behind = (numbers({**exact, name: exact[name] + way * STEP * direction}) for way in (1, -1))
            rise = (ahead - behind).sum() / (2 * STEP)
            assert abs(rise - (gradient * direction).sum()) <= TOLERANCE * np.linalg.norm(gradient), name


@pytest.mark.parametrize("target", ["top", "weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_central_differences(kind, target, tmp_path):
    model, of, output = KINDS[kind]
    path = tmp_path / "gradient.onnx"
    written = masktool.differentiate(model, path, of=of, output=output, target=target)
    assert written.figures["against"] == "float64"
    assert max(written.figures[each] for each in written.gradients.values()) < TOLERANCE
    onnx.checker.check_model(path, full_check=True)
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
    check_gradients(model, path, written)


@pytest.mark.parametrize("target", ["sum", (1, 4, 3), None])
def test_targets_of_a_map(target, tmp_path):
    model, of, output = KINDS["decoder"]
    if target is None:
        with pytest.raises(MasktoolError, match=r"holds 126 numbers for each row .* target=\(0, 0, 0\) \| \"top\""):
            masktool.differentiate(model, tmp_path / "gradient.onnx", of=of, output=output)
        return
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of=of, output=output, target=target)
    check_gradients(model, tmp_path / "gradient.onnx", written)


def test_the_one_number_of_a_row_needs_no_target(tmp_path):
    for kind in ("siamese", "recommender"):
        model, of, output = KINDS[kind]
        written = masktool.differentiate(model, tmp_path / "gradient.onnx", of=of, output=output)
        assert (written.target, written.batched) == ("sum", True)
        check_gradients(model, tmp_path / "gradient.onnx", written)


@pytest.mark.parametrize("target", [2, np.int64(2), "2", (2,), [np.int32(2)]])
def test_an_index_is_a_whole_number_of_any_kind(target):
    assert read_scalar(target) == (2,)


@pytest.mark.parametrize("target", [True, 2.0, "2.0", "", (1, None), [True]])
def test_what_is_no_index_is_no_target(target):
    with pytest.raises(MasktoolError, match="no such target"):
        read_scalar(target)


def test_the_networks_own_ends_stay(tmp_path):
    model, of, output = siamese()
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of=of, output=output)
    file, plain, feed = open_file(tmp_path / "gradient.onnx"), ReferenceEvaluator(model), draw_inputs(model)
    assert [each.name for each in file.get_inputs()] == ["left", "right"]
    assert [each.name for each in file.get_outputs()] == ["y", "objective", "gradient_left", "gradient_right"]
    np.testing.assert_allclose(file.run(["y"], feed)[0], plain.run(["y"], feed)[0], rtol=1e-5)
    recorded = json.loads(onnx.load(written.path).metadata_props[0].value)
    assert recorded["gradients"] == {"left": "gradient_left", "right": "gradient_right"}
    assert recorded["figures"] == written.figures
    assert onnx.load(written.path).metadata_props[0].key == DERIVATIVE_PROPERTY


def test_each_row_of_the_batch_has_the_gradient_of_its_own_number(tmp_path):
    model = perceptron()
    masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=2)
    file, rows = open_file(tmp_path / "gradient.onnx"), draw_inputs(model, rows=4)["x"]
    (together,) = file.run(["gradient_x"], {"x": rows})
    for index in range(4):
        (alone,) = file.run(["gradient_x"], {"x": rows[index : index + 1]})
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5, atol=1e-7)


def test_rows_that_change_one_another_are_told(tmp_path):
    model = write_network(
        "float[3, 6] x", "float[3, 6] y", "m = ReduceMean(x, zero) d = Sub(x, m) y = Mul(d, d)", zero=np.array([0])
    )
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=1)
    assert any("rows of the batch change one another's results" in note for note in written.notes)
    check_gradients(model, tmp_path / "gradient.onnx", written)


def test_an_output_without_a_batch_is_differentiated_as_a_whole(tmp_path):
    model = write_network("float[5, 6] x", "float[3] y", "s = ReduceMean<keepdims=0>(x, zero) t = Tanh(s) "
                          "e = Unsqueeze(t, zero) m = MatMul(e, w) y = Squeeze(m, zero)",
                          zero=np.array([0]), w=(6, 3))  # fmt: skip
    for target in (2, "top", "sum", "weights"):
        written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=target)
        assert not written.batched
        check_gradients(model, tmp_path / "gradient.onnx", written)


def test_an_input_that_all_rows_share_gets_the_gradient_of_the_sum(tmp_path):
    nodes = "s = Div(x, temperature) a = MatMul(s, matrix) b = Add(a, shift) y = Softmax(b)"
    model = write_network("float[N, 4] x, float[1] temperature, float[4, 3] matrix, float[1, 3] shift",
                          "float[N, 3] y", nodes)  # fmt: skip
    of = ("temperature", "matrix", "shift", "x")
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of=of, output="y", target=0)
    assert list(written.gradients) == list(of)
    check_gradients(model, tmp_path / "gradient.onnx", written)


def test_a_gradient_can_be_differentiated_again(tmp_path):
    first = masktool.differentiate(perceptron(), tmp_path / "1.onnx", of="x", output="y", target=1)
    second = masktool.differentiate(first.path, tmp_path / "2.onnx", of="x", output="gradient_x", target=3)
    assert second.gradients == {"x": "gradient_x_"}
    assert second.objective == "objective_"
    check_gradients(onnx.load(first.path), second.path, second)


@pytest.mark.parametrize(("kind", "gives"), [("float16", np.float32), ("double", np.float64)])
def test_other_precisions(kind, gives, tmp_path):
    model = perceptron(kind)
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=1)
    feed = draw_inputs(model)
    found = open_file(written.path).run(["gradient_x", "y"], feed)
    assert found[0].dtype == gives
    assert found[1].dtype == feed["x"].dtype
    reference = masktool.differentiate(perceptron(), tmp_path / "single.onnx", of="x", output="y", target=1)
    (single,) = open_file(reference.path).run(["gradient_x"], {"x": feed["x"].astype(np.float32)})
    np.testing.assert_allclose(found[0], single, rtol=0, atol=1e-2 * np.abs(single).max())


def test_a_sum_of_probabilities_has_no_gradient_and_that_is_told(tmp_path):
    written = masktool.differentiate(perceptron(), tmp_path / "gradient.onnx", of="x", output="y", target="sum")
    assert any("is 0, but for rounding" in note for note in written.notes)


def test_every_node_without_a_rule_is_named(tmp_path, capsys):
    onnx.save(recurrent(), tmp_path / "recurrent.onnx")
    with pytest.raises(UnsupportedOperatorError) as caught:
        masktool.differentiate(tmp_path / "recurrent.onnx", tmp_path / "out.onnx", of="x", output="y", target=1)
    assert [(node.op_type, node.name) for node in caught.value.nodes] == [("LSTM", "memory"), ("CumSum", "sums")]
    line = refusal(capsys, str(tmp_path / "recurrent.onnx"), "--of", "x", "--output", "y", "--target", "1")
    assert "LSTM-18 (node 'memory')" in line
    assert "CumSum-18 (node 'sums')" in line
    assert not (tmp_path / "out.onnx").exists()


def test_quantised_networks_are_refused_with_the_reason(tmp_path):
    with pytest.raises(UnsupportedOperatorError, match="export the network before it was quantised") as caught:
        masktool.differentiate(quantised(), tmp_path / "out.onnx", of="x", output="y", target=1)
    assert "quantise" in {node.name for node in caught.value.nodes}


def test_an_operator_of_another_domain_is_named(tmp_path):
    nodes = "[own] h = com.microsoft.CDist(x, w) y = Tanh(h)"
    model = write_network("float[N, 6] x", "float[N, 4] y", nodes, w=(4, 6))
    with pytest.raises(UnsupportedOperatorError, match=r"CDist.*node 'own'.*no gradient rule"):
        masktool.differentiate(model, tmp_path / "out.onnx", of="x", output="y", target=1)


def test_what_a_branch_captures_is_not_lost(tmp_path):
    """The branch reads ``x`` from around it: a gradient without that part would be wrong."""
    branch = "{{ one = Constant<value_float={0}>() {1} = Mul(x, one) }}"
    nodes = (
        "sum = ReduceSum<keepdims=0>(x) c = Greater(sum, zero) "
        f"[choose] b = If<then_branch=yes () => (float[N, 3] p) {branch.format(2.0, 'p')}, "
        f"else_branch=no () => (float[N, 3] q) {branch.format(3.0, 'q')}>(c) y = Add(b, x)"
    )
    model = write_network("float[N, 3] x", "float[N, 3] y", nodes, zero=np.float32(0))
    with pytest.raises(UnsupportedOperatorError, match=r"If-18 .node 'choose'"):
        masktool.differentiate(model, tmp_path / "out.onnx", of="x", output="y", target=1)


def test_a_wrong_gradient_is_not_written(tmp_path, monkeypatch):
    right = GRADIENT_RULES["Tanh"]
    monkeypatch.setattr(GRADIENT_RULES, "_entries", {**GRADIENT_RULES._entries, "Tanh": lambda graph, node, gradients: [
        graph.emit("Mul", right(graph, node, gradients)[0], graph.number(1.05, node.inputs[0]))
    ]})  # fmt: skip
    with pytest.raises(MasktoolError, match=r"not that of central differences.*expected a difference of at most"):
        masktool.differentiate(perceptron(), tmp_path / "out.onnx", of="x", output="y", target=1)
    assert not list(tmp_path.iterdir())


def test_without_float64_the_differences_are_of_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "possible_forwards", lambda *_: iter(()))
    written = masktool.differentiate(perceptron(), tmp_path / "gradient.onnx", of="x", output="y", target=1)
    assert written.figures["against"] == "float32"
    assert written.figures["gradient_x"] < 1e-2
    assert 0 < written.figures["spread"] < 1e-2


REFUSED = {
    "an input that does not exist": (("--of", "z", "--output", "y"), "no such input (--of z)"),
    "an output that does not exist": (("--of", "x", "--output", "z"), "no such output (--output z)"),
    "an input of integers": (("--of", "i", "--output", "y"), "a gradient is with respect to real numbers (--of i)"),
    "an output of integers": (("--of", "x", "--output", "best"), "only real numbers have a gradient (--output best)"),
    "no target": (("--of", "x", "--output", "y"), "holds 4 numbers for each row of the batch"),
    "an index too many": (("--of", "x", "--output", "y", "--target", "1,2"), "expected 1 index, got 2"),
    "an index out of range": (("--of", "x", "--output", "y", "--target", "4"), "expected 0 to 3, got 4"),
    "an index below 0": (("--of", "x", "--output", "y", "--target", "-1"), "expected 0 to 3, got -1"),
    "a word that is none": (("--of", "x", "--output", "y", "--target", "most"), "no such target (--target most)"),
    "an output that does not depend": (("--of", "u", "--output", "y", "--target", "1"), "does not depend on the input"),
    "an input twice": (("--of", "x", "--of", "x", "--output", "y", "--target", "1"), "an input that is named twice"),
    "a decision": (("--of", "x", "--output", "flat", "--target", "1"), "the gradient is 0 everywhere, because of"),
    "an unknown rank": (("--of", "r", "--output", "y", "--target", "1"), "an input of unknown rank (--of r)"),
    "a value for no input": (
        ("--of", "x", "--output", "y", "--target", "1", "--input", "z=1"), "no such input (--input z)",
    ),
    "a value that does not fit": (
        ("--of", "x", "--output", "y", "--target", "1", "--input", "x=[[1,2]]"), "does not fit its input (--input x)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def many_ends(tmp_path_factory) -> Path:
    """A network with ends of all kinds that are refused."""
    model = write_network(
        "float[N, 6] x, int64[N] i, float[N, 2] u, float[N, 4] r",
        "float[N, 4] y, int64[N, 1] best, float[N, 4] flat",
        "e = Gather(table, i) a = Gemm(x, w) b = Add(a, e) y = Add(b, r) best = ArgMax<axis=1>(y) flat = Sign(y)",
        table=(5, 4), w=(6, 4),
    )  # fmt: skip
    model.graph.input[3].type.tensor_type.ClearField("shape")
    path = tmp_path_factory.mktemp("ends") / "ends.onnx"
    onnx.save(model, path)
    return path


def refusal(capsys, model: str, *words: str) -> str:
    """Returns the one line with which a command is refused."""
    capsys.readouterr()
    assert run(["gradient", model, *words, "-o", str(Path(model).with_name("out.onnx"))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("masktool: error: ")
    return line


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line(words, said, many_ends, capsys):
    assert said in refusal(capsys, str(many_ends), *words)
    assert not many_ends.with_name("out.onnx").exists()


def test_other_files_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("weights.npy", np.zeros(3))
    masktool.export(detector_of_classes(), "masked.onnx")
    for model, said in {
        "none.onnx": "no such model file",
        "torchvision:resnet18": "a hub's name, and no ONNX model",
        "weights.npy": "not an ONNX model",
        "masked.onnx": "masktool exported the file before",
    }.items():
        assert said in refusal(capsys, model, "--of", "x", "--output", "y")


def detector_of_classes() -> onnx.ModelProto:
    """Returns a network that takes a mask."""
    nodes = "a = Conv(x, w) b = GlobalAveragePool(a) y = Flatten(b)"
    return write_network("float[N, 3, 8, 8] x", "float[N, 4] y", nodes, w=(4, 3, 3, 3))


def test_an_evaluator_that_rounds_to_float32_is_noticed(tmp_path, monkeypatch):
    def rounded(self, x):
        return (np.tanh(x).astype(np.float32).astype(x.dtype),)

    def refused(model):
        raise MasktoolError("not taken", got=model)

    monkeypatch.setattr(numpy_operators.Erf, "_run", rounded)
    monkeypatch.setattr(float64, "open_model", refused)
    monkeypatch.setattr(measurement, "CONFIRMED", 1.0)
    model = write_network("float[N, 6] x", "float[N, 4] y", "a = MatMul(x, w) y = Erf(a)", w=(6, 4))
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=1)
    assert written.figures["against"] == "float32"


def test_open_lengths_are_named_with_a_fix(tmp_path):
    nodes = "a = Conv<strides=[2, 2]>(x, w) b = GlobalAveragePool(a) y = Flatten(b)"
    model = write_network("float[N, 3, H, W] x", "float[N, 4] y", nodes, w=(4, 3, 3, 3))
    with pytest.raises(UnsupportedOperatorError, match="make_dynamic_shape_fixed"):
        masktool.differentiate(model, tmp_path / "out.onnx", of="x", output="y", target=1)


def test_an_open_length_that_needs_no_number_stays_open(tmp_path):
    model = write_network("float[N, L, 4] x", "float[N, L, 4] y", "a = MatMul(x, w) y = Softmax(a)", w=(4, 4))
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=(2, 1))
    file = open_file(written.path)
    for length in (3, 9):
        (found,) = file.run(["gradient_x"], {"x": np.ones((2, length, 4), np.float32)})
        assert found.shape == (2, length, 4)
        assert np.flatnonzero(np.abs(found).sum(axis=(0, 2))).tolist() == [2]
    with pytest.raises(Exception, match="out of"):
        file.run(["gradient_x"], {"x": np.ones((2, 2, 4), np.float32)})


def test_weights_in_another_file(tmp_path):
    model = perceptron()
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    written = masktool.differentiate(tmp_path / "model.onnx", tmp_path / "out.onnx", of="x", output="y", target=1)
    check_gradients(perceptron(), written.path, written)


def test_old_opsets_and_functions(tmp_path):
    nodes = "a = Gemm(x, w, b) h = Relu(a) n = own.Twice(h) y = Softmax<axis=1>(n)"
    header = '<ir_version: 8, opset_import: ["": 15, "own": 1]>'
    body = '<domain: "own", opset_import: ["": 15]> Twice (x) => (y) { y = Add(x, x) }'
    model = onnx.parser.parse_model(f"{header} network (float[N, 6] x) => (float[N, 4] y) {{ {nodes} }} {body}")
    weights = {"w": (6, 4), "b": (4,)}
    model.graph.initializer.extend(
        write_network("float[1] x", "float[1] y", "y = Relu(x)", **weights).graph.initializer
    )
    written = masktool.differentiate(model, tmp_path / "gradient.onnx", of="x", output="y", target=1)
    assert not onnx.load(written.path).functions
    check_gradients(model, written.path, written)


def test_integers_and_example_values(tmp_path, capsys):
    onnx.save(KINDS["recommender"].model, tmp_path / "recommender.onnx")
    np.save(tmp_path / "user.npy", np.ones((2, 4), np.float32))
    words = ["--of", "user", "--output", "rating", "--input", "item=[3,9]", "--input", f"user={tmp_path / 'user.npy'}"]
    out = str(tmp_path / "gradient.onnx")
    assert run(["gradient", str(tmp_path / "recommender.onnx"), *words, "-o", out, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["gradients"] == {"user": "gradient_user"}
    assert printed["path"] == out


def test_the_default_name_and_what_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(perceptron(), "model.onnx")
    assert run(["gradient", "model.onnx", "--of", "x", "--output", "y", "--target", "weights"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "model.gradient.onnx\n"
    assert "objective: the sum, weighed by 'y_weights', of each row of 'y', in 'objective'" in captured.err
    assert "gradient: with respect to 'x', in 'gradient_x'" in captured.err
    assert "measured against: central differences in float64" in captured.err


WINDOWS = {
    "Conv": ("Conv<strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2], group=2>(x, w)", {"w": (6, 2, 3, 2)}),
    "ConvTranspose": (
        "ConvTranspose<strides=[2, 1], pads=[1, 0, 0, 1], output_padding=[1, 0], group=2>(x, w)",
        {"w": (4, 3, 3, 2)},
    ),
    "MaxPool": ("MaxPool<kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1>(x)", {}),
    "AveragePool": ("AveragePool<kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]>(x)", {}),
    "AveragePool, padding counted": (
        "AveragePool<kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1>(x)", {},
    ),
    "Resize": ('Resize<mode="linear", axes=[2, 3]>(x, , , sizes)', {"sizes": np.array([14, 5])}),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_operators_in_numpy_are_those_of_onnx_runtime(name):
    text, weights = WINDOWS[name]
    model = write_network("float[2, 4, 9, 11] x", "float[A, B, C, D] y", f"y = {text}", **weights)
    feed = draw_inputs(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = ReferenceEvaluator(model, new_ops=numpy_operators.OPERATORS).run(None, feed)
    np.testing.assert_allclose(found, session.run(None, feed)[0], rtol=1e-4, atol=1e-5)


REAL = {
    "onnx/blazeface_front_nhwc.onnx": ("input:0", "Identity_1:0", "top"),
    "onnx/ultraface_rfb320.onnx": ("input", "boxes", "weights"),
    "onnx/yunet_s_320.onnx": ("input", "bbox_16", (210, 0)),
    "weights/squeezenet11_caffe2_fp32.onnx": ("data_0", "softmaxout_1", (207, 0, 0)),
    "weights/squeezenet11_caffe2_fp16.onnx": ("data_0", "softmaxout_1", "weights"),
    "onnx/matlab_rul_small_window20.onnx": ("imageinput", "fc_2_Flatten", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files(name, data_dir, tmp_path):
    of, output, target = REAL[name]
    written = masktool.differentiate(data_dir / name, tmp_path / "out.onnx", of=of, output=output, target=target)
    assert written.figures["against"] == "float64"
    assert written.figures[f"gradient_{of}"] <= measurement.EXACT_LIMIT
