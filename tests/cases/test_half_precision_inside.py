"""float16 inside and float32 at the ends, as converters write it: the tolerance follows what is computed inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.small_graphs import parse

import masktool
from masktool.exporters.parity import open_session
from masktool.exporters.sources import load_source
from masktool.exporters.tolerance import LIFT_TOLERANCE, LIMITS, lift_tolerance_of, limits_of
from masktool.interface.check import check_export

RNG = np.random.default_rng(1)
HALF, ONES = 1e-2, 1e-5
STEM = """
    half = Cast<to = 10>(image)
    a = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(half, k1)
    b = Relu(a)
    c = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(b, k2)
    d = Relu(c)"""
WEIGHTS = "float16[16, 3, 3, 3] k1, float16[32, 16, 3, 3] k2"
POOLED = f"""{STEM}
    e = Clip(d, low) f = Pow(e, three) g = GlobalAveragePool(f) h = Pow(g, third) i = Flatten(h) j = MatMul(i, w)
    y = Cast<to = 1>(j)"""
ATTENDED = f"""{STEM}
    shape = Constant<value_ints = [1, 32, 16]>()
    e = Reshape(d, shape) t = Transpose<perm = [0, 2, 1]>(e)
    k = MatMul(t, p) n = Add(k, o) u = Transpose<perm = [0, 2, 1]>(n)
    f = MatMul(q, u) g = Softmax<axis = -1>(f) h = MatMul(g, t) i = MatMul(h, w)
    y = Cast<to = 1>(i)"""
GATED = f"""{STEM}
    m = GlobalAveragePool(d) e = Conv(m, w1) f = Sigmoid(e) g = Mul(d, f) h = Sigmoid(g) n = Mul(g, h)
    r = ReduceMean<keepdims = 0>(n, axes) i = MatMul(r, w) y = Cast<to = 1>(i)"""
MIDDLE_ONLY = f"""{STEM}
    wide = Cast<to = 1>(d) m = GlobalAveragePool(wide) i = Flatten(m) y = MatMul(i, v)"""


def network(body: str, batch: str, weights: str, output: str = "y") -> onnx.ModelProto:
    head = f"""<ir_version: 10, opset_import: ["" : 18]>
    g (float[{batch}, 3, 16, 16] image) => (float[{output}] y) <{WEIGHTS}, {weights}>"""
    values = {"low": 1e-3, "three": 3, "third": 1 / 3, "axes": [2, 3]}
    model = parse(f"{head} {{ {body} }}", **values)
    for tensor in model.graph.initializer:  # as trained weights are: nothing grows from layer to layer
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim > 1:
            scale = np.sqrt(array.shape[-2] if array.ndim < 4 else array[0].size).astype(array.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array / scale, tensor.name))
    return model


CASES = {
    "generalised mean": (POOLED, "float16 low, float16 three, float16 third, float16[32, 5] w"),
    "attention": (ATTENDED, "float16[1, 10, 32] q, float16[32, 32] p, float16[32] o, float16[32, 6] w"),
    "squeeze and excitation": (GATED, "float16[32, 32, 1, 1] w1, int64[2] axes, float16[32, 5] w"),
    "only the middle": (MIDDLE_ONLY, "float[32, 5] v"),
}


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("name", CASES)
def test_it_exports_and_its_check_passes(name: str, batch: str, tmp_path: Path):
    body, weights = CASES[name]
    if name == "attention" and batch == "N":
        body = body.replace("[1, 32, 16]", "[0, 32, 16]")
    output = "10, 6" if name == "attention" else "5"
    model, path = network(body, batch, weights, f"{batch}, {output}"), tmp_path / "masked.onnx"
    masktool.export(model, path)
    check = check_export(path, load_source(model))
    assert not check.failed
    assert {verdict.limit for verdict in check.verdicts if verdict.figure in ("ones", "batches")} == {HALF}
    images = RNG.standard_normal((1, 3, 16, 16)).astype(np.float32)
    plain = open_session(model.SerializeToString()).run(None, {"image": images})[0]
    masked = open_session(str(path)).run(None, {"image": images})[0]
    np.testing.assert_allclose(masked, plain, rtol=0, atol=HALF * np.abs(plain).max())


def test_a_weight_that_is_stored_in_16_bits_widens_nothing(tmp_path: Path):
    body = """
        kernel = Cast<to = 1>(k1) a = Conv<pads = [1, 1, 1, 1]>(image, kernel) b = Relu(a)
        m = GlobalAveragePool(b) i = Flatten(m) y = MatMul(i, v)"""
    model = network(body, "N", "float[16, 5] v", "N, 5")
    assert limits_of(ir.from_proto(model), "image") == LIMITS
    masktool.export(model, tmp_path / "masked.onnx")
    verdicts = {
        verdict.figure: verdict for verdict in check_export(tmp_path / "masked.onnx", load_source(model)).verdicts
    }
    assert verdicts["ones"].limit == ONES


def test_a_branch_that_reaches_no_output_widens_nothing():
    body = (
        "half = Cast<to = 10>(image) unused = Relu(half) m = GlobalAveragePool(image) i = Flatten(m) y = MatMul(i, v)"
    )
    model = ir.from_proto(network(body, "N", "float[3, 5] v", "N, 5"))
    assert lift_tolerance_of(model, "image") == LIFT_TOLERANCE


def test_bfloat16_is_coarser_still():
    body = "half = Cast<to = 16>(image) s = Cast<to = 1>(half) m = GlobalAveragePool(s) i = Flatten(m) y = MatMul(i, v)"
    model = ir.from_proto(network(body, "N", "float[3, 5] v", "N, 5"))
    assert limits_of(model, "image")["ones"] > HALF
    assert limits_of(model, "image")["invariance"] == 0


def test_float16_in_a_body_is_seen():
    body = """m = GlobalAveragePool(image) i = Flatten(m) j = MatMul(i, v) t = Constant<value_int = 1>()
        c = Cast<to = 9>(t)
        y = If(c) <then_branch = yes () => (float[N, 5] p) { h = Cast<to = 10>(j) p = Cast<to = 1>(h) },
                   else_branch = no () => (float[N, 5] q) { q = Identity(j) }>"""
    model = ir.from_proto(network(body, "N", "float[3, 5] v", "N, 5"))
    assert limits_of(model, "image")["ones"] == HALF
