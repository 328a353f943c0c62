"""Loops that never end or outgrow all memory: refused where the graph tells, else ended by the clock or the user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnx.parser
import pytest

import masktool
from masktool.errors import MasktoolError
from masktool.limits import limits

HEAD = '<ir_version: 10, opset_import: ["" : 20]> g (float[N,3,16,16] image) => (float[N,4] scores) '
WEIGHTS = f"<float[4,3,3,3] w = {{{', '.join(['0.1'] * 108)}}}> "
START = "{ c = Conv (image, w) p = GlobalAveragePool (c) f = Flatten (p) t = Constant <value = bool {1}> () "
BODY = """<body = b (int64 i, bool k, float[N,4] x) => (bool k2, float[N,4] y) {
    o = Constant <value = float {1.0}> () z = Constant <value = int64 {0}> () y = Mul (x, o) """
STAYS = "k2 = Identity (k) }> "
CHANGES = "k2 = GreaterOrEqual (i, z) }> "
DOUBLES = """<body = b (int64 i, bool k, float[M,4] x) => (bool k2, float[M2,4] y) {
    k2 = Identity (k) y = Concat <axis = 0> (x, x) }>
    a = Constant <value = int64[1] {0}> () scores = ReduceMean (l, a) """


def network(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + WEIGHTS + START + nodes + "}")


ENDLESS = network('scores = Loop ("", t, f) ' + BODY + CHANGES)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ('scores = Loop ("", t, f) ' + BODY + STAYS, "a Loop that never ends"),
        ('scores = Loop ("", "", f) ' + BODY + STAYS, "a Loop that never ends"),
        ('scores = Loop ("", t, f) ' + BODY + "k2 = Constant <value = bool {1}> () }> ", "a Loop that never ends"),
        ("n = Constant <value = int64 {1099511627776}> () scores = Loop (n, t, f) " + BODY + STAYS, "limits\\(trips="),
        (
            'n = Constant <value = int64 {100001}> () scores = Loop (n, "", f) ' + BODY + STAYS,
            "limits\\(trips=100001\\)",
        ),
        ("n = Constant <value = int64 {60}> () l = Loop (n, t, f) " + DOUBLES, "numbers in one tensor"),
        ("n = Constant <value = int64 {40}> () l = Loop (n, t, f) " + DOUBLES, "limits\\(tensor="),
    ],
)
def test_a_loop_without_end_or_bound_is_refused_by_name(nodes: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=said) as caught:
        masktool.export(network(nodes), tmp_path / "out.onnx")
    assert "Loop 'scores'" in str(caught.value) or "Concat '" in str(caught.value)


def test_a_loop_that_its_condition_ends_may_say_any_number(tmp_path: Path) -> None:
    largest = "n = Constant <value = int64 {9223372036854775807}> () scores = Loop (n, t, f) "
    body = BODY.replace("int64 {0}", "int64 {3}") + "k2 = Less (i, z) }> "
    assert masktool.export(network(largest + body), tmp_path / "out.onnx", masking="fill").metadata.parity["ones"] == 0


@pytest.mark.parametrize(
    "nodes",
    [
        'scores = Loop ("", t, f) ' + BODY + CHANGES,
        "a = Constant <value = int64 {1048576}> () n = Mul (a, a) scores = Loop (n, t, f) " + BODY + STAYS,
    ],
)
def test_what_the_graph_does_not_tell_the_clock_does(nodes: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with limits(seconds=1), pytest.raises(MasktoolError, match=r"without end.*at most 1 seconds.*limits\(seconds=10\)"):
        masktool.export(network(nodes), tmp_path / "out.onnx")
    assert time.monotonic() - started < 60


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_the_user_ends_a_run(number: int, code: int, tmp_path: Path) -> None:
    onnx.save(ENDLESS, tmp_path / "in.onnx")
    arguments = ["export", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")]
    process = subprocess.Popen([sys.executable, "-m", "masktool", *arguments], stderr=subprocess.PIPE)
    time.sleep(8)
    process.send_signal(number)
    try:
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
