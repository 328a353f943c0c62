"""What a source does itself is said of the source: each cause has its own sentence, and each sentence is true."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.small_graphs import classifier, parse

import masktool
from masktool import MasktoolError
from masktool.cli import run
from masktool.contract import Masking
from masktool.exporters.diagnosis import find_fault_of_source, mixing_of, unsteady
from masktool.exporters.domains import NORMAL
from masktool.exporters.parity import open_session
from masktool.exporters.probes import Probe
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export

HEAD = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[{batch}, 3, 16, 16] image) => (float[{batch}, 5] y) <float[16, 3, 3, 3] k, float[16, 5] w{weights}>
    {{ c = Conv<pads = [1, 1, 1, 1]>({stem}, k) r = Relu(c) {middle}
       m = GlobalAveragePool({features}) f = Flatten(m) z = MatMul(f, w) {end} }}"""


def network(
    before: str = "",
    stem: str = "image",
    middle: str = "",
    features: str = "r",
    end: str = "y = Identity(z)",
    batch: str = "N",
    weights: str = "",
    **values: object,
) -> onnx.ModelProto:
    """A convolution, a ReLU, a mean and a classifier, with something of its own in front, between or behind."""
    text = HEAD.format(batch=batch, stem=stem, middle=middle, features=features, end=end, weights=weights)
    return parse(text.replace("{ c =", f"{{ {before} c ="), **values)


def spoiled(number: float, *shape: int) -> np.ndarray:
    weight = np.ones(shape)
    weight[(1,) * len(shape)] = number
    return weight


def refusal(model: onnx.ModelProto, folder: Path, **options: object) -> str:
    with pytest.raises(MasktoolError) as caught:
        masktool.export(model, folder / "masked.onnx", **options)
    assert not list(folder.iterdir())
    assert "defect of masktool" not in str(caught.value)
    assert "fixed batch cannot" not in str(caught.value)
    return str(caught.value)


RANDOM = {
    "RandomUniformLike": network(end="n = RandomUniformLike(z) y = Add(z, n)"),
    "RandomNormalLike": network(middle="n = RandomNormalLike(r) d = Add(r, n)", features="d"),
    "Bernoulli": network(middle="s = Sigmoid(r) n = Bernoulli(s) d = Mul(r, n)", features="d"),
    "RandomNormal": network(end="n = RandomNormal<shape = [1, 5]>() y = Add(z, n)"),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_network_is_said_to_be_random(name: str, tmp_path: Path):
    message = refusal(RANDOM[name], tmp_path, masking="fill")
    assert f"the network is random: the same images twice give answers that differ ({name} node 'n')" in message


def test_a_random_network_of_fixed_batch_is_not_called_that(tmp_path: Path):
    model = network(end="n = RandomUniformLike(z) y = Add(z, n)", batch="1")
    assert "the network is random" in refusal(model, tmp_path)


MIXING = {
    "centred scores": network(end="n = ReduceMean<keepdims = 1>(z, a) y = Sub(z, n)", weights=", int64[1] a", a=[0]),
    "scores over the batch": network(end="y = Softmax<axis = 0>(z)"),
    "brightest image": network("n = ReduceMax<keepdims = 1>(image, a) l = Sub(image, n)", "l",
                               weights=", int64[1] a", a=[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_what_a_batch_does_to_a_network_that_mixes_it_is_held_against_nobody(name: str, tmp_path: Path):
    metadata = masktool.export(MIXING[name], tmp_path / "masked.onnx", masking="fill").metadata
    assert metadata.batching == "one"
    assert metadata.parity["ones"] == 0
    plain = RunnableModel.of(functools.partial(open_session, MIXING[name].SerializeToString()), "image")
    probe = Probe.draw((3, 16, 16), "NCHW", np.dtype(np.float32), NORMAL)
    assert mixing_of(plain, probe) > 0.001
    assert "mixes the images of a batch" in str(
        find_fault_of_source(plain, probe, ir.from_proto(MIXING[name]), alone=False)
    )
    assert find_fault_of_source(plain, probe, ir.from_proto(MIXING[name]), alone=True) is None


def test_a_network_that_keeps_images_apart_mixes_none():
    plain = RunnableModel.of(functools.partial(open_session, network().SerializeToString()), "image")
    assert mixing_of(plain, Probe.draw((3, 16, 16), "NCHW", np.dtype(np.float32), NORMAL)) == 0


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"k": spoiled(np.nan, 16, 3, 3, 3)}, "'k' (1 of 432 numbers)"),
        ({"w": spoiled(np.nan, 16, 5)}, "'w' (1 of 80 numbers)"),
        ({"k": spoiled(np.inf, 16, 3, 3, 3)}, "'k' (1 of 432 numbers)"),
    ],
)
def test_spoiled_weights_are_named(values: dict, named: str, batch: str, tmp_path: Path):
    message = refusal(network(batch=batch, **values), tmp_path)
    assert f"weights hold NaN or infinity, and so do its answers ({named})" in message


def test_an_infinity_that_rules_scores_out_is_no_spoiled_weight(tmp_path: Path):
    never = np.array([0, 0, -np.inf, 0, 0])
    model = network(end="y = Add(z, never)", weights=", float[5] never", never=never)
    assert masktool.export(model, tmp_path / "masked.onnx").metadata.parity["ones"] == 0


@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_source_that_always_gives_nan_is_said_to(batch: str, tmp_path: Path):
    model = network("z0 = Sub(image, image) l = Div(z0, z0)", "l", batch=batch)
    assert "the source itself gives no numbers (random images of N(0, 1), 0.001 to 1, 0 to 255)" in refusal(
        model, tmp_path
    )


def test_a_source_that_onnx_runtime_does_not_run_is_said_not_to(tmp_path: Path):
    model = network(
        end="s = Constant<value_ints = [7, 3]>() o = Reshape(z, s) y = MatMul(o, v)", weights=", float[3, 5] v"
    )
    message = refusal(model, tmp_path)
    assert "the source itself does not run in ONNX Runtime (random images of 16 x 16, one at a time)" in message
    assert message.endswith("nor does it with 2, 4, 8, 16 or 3 at once")


def test_a_file_that_onnx_runtime_takes_is_not_called_one_that_it_does_not(tmp_path: Path):
    onnx.save(classifier(), tmp_path / "network.onnx")
    source = load_source(tmp_path / "network.onnx")
    broken = source.model.clone()
    next(node for node in broken.graph if node.op_type == "Relu").op_type = "ThereIsNoSuchOperator"
    with pytest.raises(MasktoolError, match=r"takes the file, but not the graph that masktool read.*network\.onnx"):
        masktool.export(dataclasses.replace(source, model=broken), tmp_path / "masked.onnx")
    with pytest.raises(MasktoolError, match="ONNX Runtime does not take the model"):
        masktool.export(dataclasses.replace(source, model=broken, path=None), tmp_path / "masked.onnx")


def test_a_masked_graph_that_does_not_open_is_masktools_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from masktool.exporters import preparation

    whole = preparation.mask_model

    def break_it(model: ir.Model, *arguments: object, **options: object) -> None:
        whole(model, *arguments, **options)
        next(node for node in model.graph if node.op_type == "Relu").op_type = "ThereIsNoSuchOperator"

    monkeypatch.setattr(preparation, "mask_model", break_it)
    with pytest.raises(MasktoolError, match="does not take the graph that masktool made, a defect of masktool"):
        masktool.export(classifier(), tmp_path / "masked.onnx")


def test_the_check_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    masktool.export(network(), "masked.onnx")
    onnx.save(RANDOM["RandomUniformLike"], "random.onnx")
    check = check_export(Path("masked.onnx"), load_source("random.onnx"))
    assert "ones" in [verdict.figure for verdict in check.failed]
    assert check.cause is not None
    assert "the network is random" in check.cause
    assert run(["export", "--check", "masked.onnx", "random.onnx"]) == 1
    assert "the network is random" in capsys.readouterr().err


TRAINING = {
    "attribute": (18, "n, rm, rv = BatchNormalization<training_mode = 1>(r, s, o, o, s)"),
    "attribute in 15": (15, "n, rm, rv = BatchNormalization<training_mode = 1>(r, s, o, o, s)"),
    "other momentum": (18, "n, rm, rv = BatchNormalization<training_mode = 1, momentum = 0.5>(r, s, o, o, s)"),
}


@pytest.mark.parametrize("name", TRAINING)
def test_running_statistics_are_not_called_random(name: str, tmp_path: Path):
    opset, node = TRAINING[name]
    model = network(middle=node, features="n", weights=", float[16] s, float[16] o", s=np.ones(16), o=np.zeros(16))
    model.opset_import[0].version = opset
    message = refusal(model, tmp_path, masking="fill")
    assert "random" not in message
    assert "the network is in training mode: the same images twice give answers that differ (Batch" in message
    assert "export it in evaluation mode" in message


def test_what_draws_and_what_trains_are_told_apart():
    def unsteady_of(middle: str, **values: object) -> str:
        model = network(middle=middle, features="n", weights=", float[16] s, float[16] o", **values)
        return str(unsteady(ir.from_proto(model), 0.1))

    training = "b, rm, rv = BatchNormalization<training_mode = 1>(r, s, o, o, s) "
    assert "the network is random" in unsteady_of(training + "d = RandomNormalLike(b) n = Add(b, d)")
    assert "in training mode" in unsteady_of(training + "n = Relu(b)")
    message = unsteady_of("n = BatchNormalization(r, s, o, o, s)")
    assert "is random" not in message
    assert "not reproducible" in message
    assert "by 0.1 of the largest, though no node of it is known to draw random numbers" in message


INTEGER_BODY = """q = QuantizeLinear(x, s, z) i = {operator}
    e = Cast<to = 1>(i) c = Mul(e, t) r = Relu(c) m = GlobalAveragePool(r) f = Flatten(m) y = MatMul(f, w)"""


@pytest.mark.parametrize("masking", ["layer", "partial"])
@pytest.mark.parametrize(
    "operator",
    [
        "ConvInteger(q, ki, z)",
        "ConvInteger(q, ki)",
        "ConvInteger<pads = [1, 1, 1, 1]>(q, ki, z)",
        "MatMulInteger(q, kw, z)",
    ],
)
def test_integers_of_a_constant_scale_are_not_called_measured(operator: str, masking: Masking, tmp_path: Path):
    columns = 3 if "MatMul" in operator else 8
    model = parse(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, 16, 16] x) => (float[N, 5] y)
        <float s, uint8 z, int8[8, 3, 3, 3] ki, int8[16, 16] kw, float t, float[{columns}, 5] w>
        {{ {INTEGER_BODY.format(operator=operator)} }}""",
        s=1 / 255, z=0, ki=np.ones((8, 3, 3, 3)), kw=np.ones((16, 16)), t=0.001,
    )  # fmt: skip
    name = operator.split("Integer")[0] + "Integer"
    message = refusal(model, tmp_path, masking=masking)
    assert f"no mask rule for 1 node: {name}-" in message
    assert "it computes on integers whose scale is not part of it" in message
    assert "measured" not in message
    assert "export the float model, or its QDQ file" in message


@pytest.mark.parametrize("between", ["", "d = Transpose<perm = [0, 1, 3, 2]>(q)", "d = Identity(q)"])
def test_integers_of_a_scale_that_is_measured_are_called_that(between: str, tmp_path: Path):
    model = parse(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3, 16, 16] x) => (float[N, 5] y)
        <int8[8, 3, 3, 3] ki, float[8, 5] w> {{ q, s, z = DynamicQuantizeLinear(x) {between}
        i = ConvInteger({"d" if between else "q"}, ki, z) e = Cast<to = 1>(i) c = Mul(e, s) r = Relu(c)
        m = GlobalAveragePool(r) f = Flatten(m) y = MatMul(f, w) }}""",
        ki=np.ones((8, 3, 3, 3)),
    )
    message = refusal(model, tmp_path)
    assert message.count("its scale is measured at run time over the whole batch") == 2


CONDITIONS = {
    "flag": ("bool flag", "k0 = Identity(flag)", "the input 'flag'; export the network with it fixed"),
    "two": (
        "float a1, float a2", "k0 = Greater(a1, a2)", "the inputs 'a1', 'a2'; export the network with them fixed",
    ),
    "number": (
        "int64 mode", "z0 = Constant<value_int = 0>() k0 = Equal(mode, z0)",
        "the input 'mode'; export the network with it fixed",
    ),
    "image": (
        "", "m0 = ReduceMax<keepdims = 0>(r) z0 = Constant<value_float = 1.0>() k0 = Greater(m0, z0)",
        "the image; export the network with one of the two branches alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_said_to_follow_from_what_it_follows_from(name: str, tmp_path: Path):
    inputs, condition, said = CONDITIONS[name]
    model = parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[N, 3, 16, 16] image{", " + inputs if inputs else ""}) => (float[N, 5] y)
        <float[8, 3, 3, 3] k, float[8, 5] w> {{ c = Conv(image, k) r = Relu(c) {condition}
        h = If(k0) <then_branch = t () => (h1) {{ h1 = Sigmoid(r) }}, else_branch = e () => (h2) {{ h2 = Neg(r) }}>
        m = GlobalAveragePool(h) f = Flatten(m) y = MatMul(f, w) }}"""
    )
    message = refusal(model, tmp_path)
    assert f"its condition is computed from {said}" in message
    assert "fixed input size" not in message
