"""Networks whose height and width are open by declaration, and that do not take every size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool
from masktool.errors import MasktoolError

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
TEXT_LINES = """(float[{batch},1,h,w] x) => (float[n,t,5] y) <float[4,1,3,3] kernel, float[4,5] weight> {{
    c = Conv <pads = [1,1,1,1]> (x, kernel) r = Relu (c) p = MaxPool <kernel_shape = [{height},1]> (r)
    q = Shape (p) two = Constant <value_int = 2> () one = Constant <value_int = 1> () k = Gather (q, two)
    same = Equal (k, one) axis = Constant <value_ints = [2]> ()
    s = If (same) <then_branch = yes () => (float[n,4,t] u) {{ u = Squeeze (p, axis) }},
                   else_branch = no () => (float[n,4,z,t] v) {{ v = Identity (p) }}>
    o = Transpose <perm = [0,2,1]> (s) y = MatMul (o, weight) }}"""
FLAT = """(float[{batch},3,h,w] x) => (float[{batch},5] y) <float[2,3,1,1] kernel, float[{numbers},5] weight> {{
    c = Conv (x, kernel) r = Relu (c) f = Flatten (r) y = Gemm (f, weight) }}"""
CASES = {
    "lines of 32 pixels": (TEXT_LINES.format(batch="n", height=32), (1, 32, 100), "32 x 32"),
    "lines of 48 pixels": (TEXT_LINES.format(batch="n", height=48), (1, 48, 90), "48 x 320"),
    "lines of 32 pixels, one at a time": (TEXT_LINES.format(batch=1, height=32), (1, 32, 100), "32 x 32"),
    "digits": (FLAT.format(batch="n", numbers=2 * 28 * 28), (3, 28, 28), "28 x 28"),
    "small pictures, fixed batch": (FLAT.format(batch=1, numbers=2 * 32 * 32), (3, 32, 32), "32 x 32"),
    "the usual size alone": (FLAT.format(batch="n", numbers=2 * 224 * 224), (3, 224, 224), None),
}


@pytest.mark.parametrize("case", CASES)
def test_fill_takes_them_and_says_at_what_size_it_was_measured(case: str, tmp_path: Path) -> None:
    body, shape, measured = CASES[case]
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(parse(HEAD + body), source)
    metadata = masktool.export(source, target, masking="fill").metadata
    assert metadata.parity.get("size") == measured
    rng = np.random.default_rng(1)
    image, mask = rng.standard_normal((1, *shape)).astype("f"), np.ones((1, 1, *shape[1:]), "f")
    plain = onnxruntime.InferenceSession(source)
    with masktool.load(target) as session:
        expected = plain.run(None, {"x": image})[0]
        np.testing.assert_array_equal(session.run(image, mask)["y"].reshape(expected.shape), expected)
        mask[..., : shape[2] // 2] = 0
        expected = plain.run(None, {"x": (image * mask).astype("f")})[0]  # the mean of unknown preprocessing is 0
        np.testing.assert_allclose(
            session.run(image, mask)["y"].reshape(expected.shape), expected, rtol=1e-6, atol=1e-6
        )


def test_layer_masking_is_refused_and_a_size_settles_it(tmp_path: Path) -> None:
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(parse(HEAD + TEXT_LINES.format(batch="n", height=32)), source)
    with pytest.raises(MasktoolError, match=r"a fixed size settles it: add input_size=\(H, W\); masking=.fill. takes"):
        masktool.export(source, target)
    metadata = masktool.export(source, target, input_size=(32, 100)).metadata
    assert metadata.parity["ones"] == 0
    check = pytest.importorskip("masktool.interface.check")
    sources = pytest.importorskip("masktool.exporters.sources")
    assert not check.check_export(target, sources.load_source(source)).failed  # the source's own size is open


def test_a_network_that_takes_no_size_that_is_tried_is_asked_for_one(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(parse(HEAD + FLAT.format(batch="n", numbers=2 * 9 * 11)), source)
    with pytest.raises(MasktoolError, match=r"224 x 224.*give input_size=\(H, W\)"):
        masktool.export(source, tmp_path / "out.onnx", masking="fill")
    masktool.export(source, tmp_path / "out.onnx", masking="fill", input_size=(9, 11))
