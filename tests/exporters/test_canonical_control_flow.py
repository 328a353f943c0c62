"""If and Loop are written out where their course is known, and compute what they computed."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session
from masktool.exporters.rewrites import control_flow

RNG = np.random.default_rng(7)
IMAGES = RNG.standard_normal((2, 3, 6, 8)).astype(np.float32)
CONSTANTS = {
    "w": RNG.standard_normal((3, 3, 3, 3)).astype(np.float32),
    "yes": np.array(True),
    "no": np.array(False),
    "three": np.array(3),
    "none": np.array(0),
    "one": np.array(1),
    "last": np.array(3),
    "half": np.array(0.5, np.float32),
}
BRANCHES = """<then_branch = t () => (float[n, 3, 6, 8] a) { a = Relu (x) },
              else_branch = e () => (float[n, 3, 6, 8] b) { m = Neg (x) b = Mul (m, half) }>"""
LOOPS = {
    "carried value": """y = Loop (three, yes, x) <body = l (int64 i, bool c, float[n, 3, 6, 8] v)
        => (bool d, float[n, 3, 6, 8] r) { d = Identity (c) k = Mul (v, half) r = Relu (k) }>""",
    "no condition, its own weight, the iteration's number": """y = Loop (three, , x)
        <body = l (int64 i, bool c, float[n, 3, 6, 8] v) => (bool d, float[n, 3, 6, 8] r)
        { d = Constant <value = bool {1}> () s = Constant <value = float {1.5}> () f = Cast <to = 1> (i) g = Add (f, s)
          r = Mul (v, g) }>""",
    "reads values outside": """h = Conv <pads = [1, 1, 1, 1]> (x, w) y = Loop (three, yes, x)
        <body = l (int64 i, bool c, float[n, 3, 6, 8] v) => (bool d, float[n, 3, 6, 8] r)
        { d = Identity (c) r = Add (v, h) }>""",
    "collected values": """z, all = Loop (three, yes, x) <body = l (int64 i, bool c, float[n, 3, 6, 8] v)
        => (bool d, float[n, 3, 6, 8] r, float[n, 3, 6, 8] q) { d = Identity (c) r = Mul (v, half) q = Relu (r) }>
        m = ReduceMean <axes = [0], keepdims = 0> (all) y = Add (z, m)""",
    "swapped values": """y, o = Loop (three, yes, x, x) <body = l (int64 i, bool c, float[n, 3, 6, 8] v,
        float[n, 3, 6, 8] u) => (bool d, float[n, 3, 6, 8] r, float[n, 3, 6, 8] q)
        { d = Identity (c) r = Identity (u) q = Neg (v) }>""",
    "an If inside": """y = Loop (three, yes, x) <body = l (int64 i, bool c, float[n, 3, 6, 8] v)
        => (bool d, float[n, 3, 6, 8] r) { d = Identity (c) e = Equal (i, one)
        r = If (e) <then_branch = t () => (float[n, 3, 6, 8] a) { a = Relu (v) },
                    else_branch = f () => (float[n, 3, 6, 8] b) { b = Mul (v, half) }> }>""",
}
STAY = {
    "condition on the image": f"top = ReduceMax <keepdims = 0> (x) c = Greater (top, half) y = If (c) {BRANCHES}",
    "no iteration": LOOPS["carried value"].replace("three", "none"),
    "condition that ends it": LOOPS["carried value"].replace("Identity (c)", "Less (i, one)"),
    "never begins": LOOPS["carried value"].replace("yes", "no"),
    "count on the image": "m = ReduceMax <keepdims = 0> (x) count = Cast <to = 7> (m) "
    + LOOPS["carried value"].replace("three", "count"),
}


def graph(nodes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 6, 8] x) => (float[n, p, q, r] y) {{ {nodes} }}'
    )
    for name in sorted(set(re.findall(r"\w+", nodes)) & set(CONSTANTS)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(CONSTANTS[name], name))
    return model


def check_same(model: onnx.ModelProto) -> list[str]:
    """Returns the canonical operators, once they have given what the source gives."""
    canonical = canonicalise(ir.from_proto(model))
    proto = ir.to_proto(canonical)
    onnx.checker.check_model(proto, full_check=True)
    found = open_session(proto.SerializeToString()).run(None, {"x": IMAGES})[0]
    np.testing.assert_array_equal(found, open_session(model.SerializeToString()).run(None, {"x": IMAGES})[0])
    return [node.op_type for node in canonical.graph]


@pytest.mark.parametrize(("condition", "kept"), [("yes", ["Relu"]), ("no", ["Neg", "Mul"])])
def test_an_if_with_a_constant_condition_is_its_branch(condition: str, kept: list[str]) -> None:
    assert check_same(graph(f"y = If ({condition}) {BRANCHES}")) == kept


@pytest.mark.parametrize(("axis", "kept"), [(2, ["Neg", "Mul"]), (1, ["Relu"])])
def test_an_if_over_the_length_of_an_axis_is_its_branch(axis: int, kept: list[str]) -> None:
    nodes = f"""s = Shape (x) i = Constant <value_int = {axis}> () d = Gather <axis = 0> (s, i) c = Equal (d, last)
        y = If (c) {BRANCHES}"""
    assert check_same(graph(nodes)) == kept


def test_both_branches_may_use_the_same_names() -> None:
    nodes = """r = Relu (x) a = If (yes) <then_branch = t () => (float[n, 3, 6, 8] o) { i = Neg (r) o = Relu (i) },
        else_branch = e () => (float[n, 3, 6, 8] o2) { o2 = Identity (r) }>
        c = If (yes) <then_branch = t () => (float[n, 3, 6, 8] o3) { i2 = Abs (a) o3 = Relu (i2) },
        else_branch = e () => (float[n, 3, 6, 8] o4) { o4 = Identity (r) }> y = Add (a, c)"""
    model = graph(nodes)
    second = next(node for node in model.graph.node if node.output[0] == "c")
    for attribute in second.attribute:
        for value in (*attribute.g.node, *attribute.g.output):
            renamed = {"i2": "i", "o3": "o", "o4": "o2"}
            if isinstance(value, onnx.NodeProto):
                value.input[:] = [renamed.get(name, name) for name in value.input]
                value.output[:] = [renamed.get(name, name) for name in value.output]
            else:
                value.name = renamed.get(value.name, value.name)
    assert check_same(model) == ["Relu", "Neg", "Relu", "Abs", "Relu", "Add"]


@pytest.mark.parametrize("nodes", LOOPS.values(), ids=list(LOOPS))
def test_a_loop_with_a_constant_trip_count_is_unrolled(nodes: str) -> None:
    assert not {"Loop", "If"} & set(check_same(graph(nodes)))


@pytest.mark.parametrize("nodes", STAY.values(), ids=list(STAY))
def test_what_is_known_only_at_run_time_stays(nodes: str) -> None:
    assert {"Loop", "If"} & set(check_same(graph(nodes)))


def test_a_loop_that_would_become_too_large_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = LOOPS["carried value"]
    body = 3
    monkeypatch.setattr(control_flow, "MAX_UNROLLED_NODES", 3 * body)
    assert "Loop" not in check_same(graph(nodes))
    monkeypatch.setattr(control_flow, "MAX_UNROLLED_NODES", 3 * body - 1)
    assert "Loop" in check_same(graph(nodes))
