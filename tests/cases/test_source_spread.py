"""A source whose own answers move with the runtime's optimisations is judged against its own spread, no other is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from networks.small_graphs import parse

import masktool
from masktool import MasktoolError
from masktool.exporters.parity import check_parity, judge_parity
from masktool.exporters.sources import load_source
from masktool.exporters.tolerance import LIMITS
from masktool.interface.check import check_export

WEIGHTS = """float[8, 3, 4, 4] k, float[8] s, float[8] o, float two, float eps, float[8, 8] w1, float[8, 8] w2,
    float[8, 8] wv, float root, float one, float gain, float half"""
BODY = """c = Conv<strides = [4, 4]>(image, k) shape = Constant<value_ints = [{batch}, 8, 64]>() f = Reshape(c, shape)
    t = Transpose<perm = [0, 2, 1]>(f) ax = Constant<value_ints = [-1]>()
    mm = ReduceMean<keepdims = 1>(t, ax) d = Sub(t, mm) p = Pow(d, two) v = ReduceMean<keepdims = 1>(p, ax)
    ve = Add(v, eps) sq = Sqrt(ve) dv = Div(d, sq) ms = Mul(dv, s) l = Add(ms, o)
    h1 = MatMul(l, w1) g1 = Div(h1, root) g2 = Erf(g1) g3 = Add(g2, one) g4 = Mul(h1, g3) g = Mul(g4, half)
    h2 = MatMul(g, w2) r = Add(h2, t) q = MatMul(r, wv) qt = Transpose<perm = [0, 2, 1]>(q) at = MatMul(r, qt)
    am = Mul(at, half) sm = Softmax<axis = -1>(am) av = MatMul(sm, r)"""
ENDS = {
    "binary map": "z = Mul(av, gain) n = Sin(z) gt = Greater(n, half) y = Cast<to = 1>(gt)",
    "fringes": "z = Mul(av, gain) y = Sin(z)",
}


def token_mixer(end: str, batch: str = "N", gain: float = 1e5) -> onnx.ModelProto:
    """Attention and a GELU written out, as exporters do: ONNX Runtime fuses them, more or less far."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
    g (float[{batch}, 3, 32, 32] image) => (float[{batch}, 64, 8] y) <{WEIGHTS}>
    {{ {BODY.format(batch="0" if batch == "N" else batch)} {end} }}"""
    model = parse(text, two=2, eps=1e-5, root=2**0.5, one=1, gain=gain, half=0.5)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim > 1:
            scaled = (array / np.sqrt(array[0].size)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, tensor.name))
    return model


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("end", ENDS)
def test_it_is_judged_against_its_own_spread(end: str, batch: str, tmp_path: Path):
    model, path = token_mixer(ENDS[end], batch), tmp_path / "masked.onnx"
    parity = masktool.export(model, path).metadata.parity
    assert parity["ones"] > LIMITS["ones"]
    assert parity["source_spread"] > LIMITS["ones"]
    assert parity["ones"] <= 2 * parity["source_spread"]
    assert parity["ones_unfused"] <= LIMITS["ones"]
    assert not check_export(path).failed
    assert not check_export(path, load_source(model)).failed


def test_a_steady_source_is_judged_as_ever(tmp_path: Path):
    parity = masktool.export(token_mixer("y = Identity(av)"), tmp_path / "masked.onnx").metadata.parity
    assert "source_spread" not in parity
    assert parity["ones"] <= LIMITS["ones"]


def test_a_defect_behind_an_unsteady_source_is_still_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from masktool.exporters import preparation

    whole = preparation.mask_model

    def spoil(model, *arguments, **options):
        whole(model, *arguments, **options)
        weight = model.graph.initializers["w2"]
        weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * np.float32(1.01))

    monkeypatch.setattr(preparation, "mask_model", spoil)
    with pytest.raises(MasktoolError, match=r"ones_unfused ≤ 1e-05, got.*this is a defect of masktool"):
        masktool.export(token_mixer(ENDS["fringes"], gain=1e4), tmp_path / "masked.onnx")


def test_the_spread_widens_what_follows_the_runtime_and_nothing_else():
    figures = dict.fromkeys(LIMITS, 0.0) | {"ones": 0.3, "batches": 0.3, "source_spread": 0.2}
    check_parity(figures)
    verdicts = {verdict.figure: verdict for verdict in judge_parity(figures)}
    assert verdicts["ones"].limit == pytest.approx(0.4)
    assert (verdicts["invariance"].limit, verdicts["ones_unfused"].limit) == (0, LIMITS["ones_unfused"])
    for beyond in ({"ones": 0.5}, {"invariance": 0.1}, {"ones_unfused": 0.1}):
        with pytest.raises(MasktoolError, match=f"expected {next(iter(beyond))}"):
            check_parity(figures | beyond)
