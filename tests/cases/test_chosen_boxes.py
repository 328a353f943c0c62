"""Detectors that end in NonMaxSuppression: boxes and scores are masked in every layer, the chosen list is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool
from masktool.cli import run
from masktool.errors import MasktoolError

HEAD = """
    a = Conv <pads = [1, 1, 1, 1]> (x, kernel) h = Relu (a) d = Conv (h, head)
    s = Constant <value_ints = [-1, 7, 64]> ()
    r = Reshape (d, s) i = Constant <value_ints = [0, 1, 2, 3]> () j = Constant <value_ints = [4, 5, 6]> ()
    b = Gather <axis = 1> (r, i) boxes = Transpose <perm = [0, 2, 1]> (b) c = Gather <axis = 1> (r, j)
    scores = Sigmoid (c)"""
CHOOSE = """
    m = Constant <value_ints = [20]> () o = Constant <value_floats = [0.4]> ()
    selected = NonMaxSuppression (boxes, scores, m, o, o)"""
DETECTIONS = """
    k = Constant <value_ints = [0, 2]> () p = Gather <axis = 1> (selected, k) detections = GatherND (boxes, p)"""
COUNT = "n = Shape <start = 0, end = 1> (selected) count = Cast <to = 1> (n)"
GLOBAL = "q = GlobalAveragePool (h) f = Flatten (q) whole = Softmax (f)"
BOXES, SCORES = "float[{0}, 64, 4] boxes", "float[{0}, 3, 64] scores"
LISTED = "int64[k, 3] selected"
NETWORKS = {
    "boxes, scores and the list": (CHOOSE, [BOXES, SCORES, LISTED], ["boxes", "scores"], ["selected"]),
    "chosen boxes alone": (CHOOSE + DETECTIONS, ["float[k, 4] detections"], ["boxes", "scores"], ["detections"]),
    "a count of boxes beside a class": (
        CHOOSE + COUNT + GLOBAL, ["float[1] count", "float[{0}, 6] whole"], ["whole"], ["count"],
    ),
}  # fmt: skip


def network(body: str, outputs: list[str], batch: int | str) -> onnx.ModelProto:
    """Returns a detector for images (batch, 3, 8, 8)."""
    ends = ", ".join(outputs).format(batch)
    return parse(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[{batch}, 3, 8, 8] x) => ({ends})
        <float[6, 3, 3, 3] kernel, float[7, 6, 1, 1] head> {{ {HEAD} {body} }}""")


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_chosen_is_left_out_and_the_rest_masked(name: str, batch: int | str, tmp_path: Path, capsys):
    body, outputs, kept, left_out = NETWORKS[name]
    onnx.save(network(body, outputs, batch), tmp_path / "plain.onnx")
    options = ["--class-output", "whole" if "whole" in kept else "none"]
    assert run(["export", str(tmp_path / "plain.onnx"), "-o", str(tmp_path / "masked.onnx"), *options]) == 0
    said = capsys.readouterr().err
    assert f"note: left out: {left_out[0]!r}, which NonMaxSuppression chose" in said
    assert f"the outputs are {', '.join(map(repr, kept))}" in said
    by_hand = network(GLOBAL if "whole" in kept else "", [{"boxes": BOXES, "scores": SCORES}.get(each) or
                      "float[{0}, 6] whole" for each in kept], batch)  # fmt: skip
    onnx.save(by_hand, tmp_path / "by_hand.onnx")
    masktool.export(tmp_path / "by_hand.onnx", tmp_path / "expected.onnx", class_output=options[1])
    rng = np.random.default_rng(0)
    images, masks = rng.random((3, 3, 8, 8), np.float32), (rng.random((3, 1, 8, 8)) < 0.6).astype(np.float32)
    with masktool.load(tmp_path / "masked.onnx") as found, masktool.load(tmp_path / "expected.onnx") as expected:
        assert found.metadata.batching == "any"
        assert list(found.run(images)) == kept
        for each, answer in expected.run(images, masks).items():
            np.testing.assert_array_equal(found.run(images, masks)[each], answer)
    assert run(["export", "--check", str(tmp_path / "masked.onnx"), str(tmp_path / "plain.onnx")]) == 0


def test_fill_keeps_the_list(tmp_path: Path):
    body, outputs, *_ = NETWORKS["chosen boxes alone"]
    onnx.save(network(body, outputs, "N"), tmp_path / "plain.onnx")
    masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill")
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    plain = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    with masktool.load(tmp_path / "masked.onnx") as session:
        np.testing.assert_array_equal(session.run(image)["detections"][0], plain.run(None, {"x": image})[0])


@pytest.mark.parametrize("choice", ["NonZero (h)", "Unique (boxes)"])
def test_a_node_without_a_rule_says_whether_fill_takes_the_file(choice: str, tmp_path: Path):
    body = f"z = {choice} y = Cast <to = 1> (z)"
    onnx.save(network(body, ["float[k] y" if "Unique" in choice else "float[k, j] y"], "N"), tmp_path / "plain.onnx")
    with pytest.raises(MasktoolError, match=r"masking=.fill. takes this file"):
        masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx")
    metadata = masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill").metadata
    assert metadata.parity["response"] > 0
    images = np.random.default_rng(1).random((3, 3, 8, 8), np.float32)
    plain = onnxruntime.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    with masktool.load(tmp_path / "masked.onnx") as session:
        for found, image in zip(session.run(images)["y"], images, strict=True):
            np.testing.assert_array_equal(found, plain.run(None, {"x": image[None]})[0])


def test_a_node_without_a_rule_does_not_promise_what_fill_does_not_keep(tmp_path: Path):
    body = "z = RandomNormalLike (boxes) y = Add (z, boxes)"
    onnx.save(network(body, ["float[N, 64, 4] y"], "N"), tmp_path / "plain.onnx")
    with pytest.raises(MasktoolError) as caught:
        masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx")
    assert "masking=" not in str(caught.value)
    with pytest.raises(MasktoolError, match="random"):
        masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", masking="fill")
