"""Random networks, exported and held to independent rules; more of them: ``python -m fuzz networks --count 10000``."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from fuzz.networks import judge  # noqa: E402
from fuzz.networks.drawing import EPSILON, NetworkDrawer, draw_network, has_narrow_samplers, prune  # noqa: E402
from fuzz.networks.judge import judge_network, judge_under  # noqa: E402
from fuzz.networks.program import OPERATIONS, Dialect, Program  # noqa: E402
from fuzz.networks.writer import write_program  # noqa: E402
from masktool.ops.gradients import GRADIENT_RULES, first_gradient  # noqa: E402
from masktool.ops.graph import MASK_RULES  # noqa: E402

PROJECT = Path(__file__).resolve().parents[2]
COUNT = 100
DRAWN = 300
"""Networks among which every operation is looked for: drawing one takes a millisecond, judging it a second."""


def undo_a_norm() -> Program:
    """Returns a network whose mean undoes a norm: its gradient is 0, and a file's is rounding."""
    drawer = NetworkDrawer(3)
    features = drawer.conv(0, 6, kernel=3, same=True)
    weights = {"scale": drawer.gains(6), "shift": drawer.shifts(6)}
    mean = drawer.emit("global_mean", drawer.emit("instance_norm", features, weights=weights, epsilon=EPSILON))
    scores = drawer.linear(drawer.emit("flatten", mean, features=6))
    return Program(3, drawer.image_shape, tuple(drawer.steps), {"scores": scores}, Dialect(18, "N", False, False))


@pytest.mark.fuzz
def test_random_networks_are_exact():
    command = [sys.executable, "-m", "fuzz", "networks", "--count", str(COUNT)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"exact {COUNT}, refused 0, wrong 0" in done.stdout


@pytest.mark.fuzz
def test_every_operation_is_drawn_in_every_spelling():
    drawn = {
        (step.operation, step.spelling % len(OPERATIONS[step.operation].spellings))
        for seed in range(DRAWN)
        for step in prune(draw_network(seed)).instructions
    }
    assert drawn == {(name, way) for name, each in OPERATIONS.items() for way in range(len(each.spellings))}


def test_a_network_is_the_same_for_the_same_seed():
    first, second = (write_program(prune(draw_network(5))) for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()
    assert Counter(node.op_type for node in first.graph.node)["Conv"] > 0
    assert onnx.load_model_from_string(first.SerializeToString()) == first


@pytest.mark.fuzz
def test_a_wrong_rule_is_noticed(monkeypatch):
    def forget_the_mask(graph, node):
        graph.set_state(node.outputs[0], graph.state(node.inputs[0]))

    assert judge_network(prune(draw_network(1))).verdict == "exact"
    monkeypatch.setitem(MASK_RULES._entries, "Conv", forget_the_mask)
    verdicts = [judge_network(prune(draw_network(seed))).verdict for seed in range(4)]
    assert "exact" not in verdicts
    assert np.any([verdict == "wrong" for verdict in verdicts])


@pytest.mark.fuzz
def test_a_wrong_gradient_rule_is_noticed(monkeypatch):
    def forget_the_bound(graph, node, gradients):
        return [first_gradient(gradients)]

    assert judge_network(prune(draw_network(1)), gradient=True).verdict == "exact"
    monkeypatch.setitem(GRADIENT_RULES._entries, "Relu", forget_the_bound)
    verdicts = [judge_network(prune(draw_network(seed)), gradient=True) for seed in range(3)]
    wrong = [judgement.reason for judgement in verdicts if judgement.verdict == "wrong"]
    assert wrong
    assert all("gradient under" in reason for reason in wrong)


@pytest.mark.fuzz
def test_a_gradient_that_is_rounding_alone_is_exact():
    assert judge_network(undo_a_norm(), gradient=True).verdict == "exact"


@pytest.mark.fuzz
def test_narrow_samplers_are_judged_under_both_rules(monkeypatch):
    judged = []

    def note(rule, program, *, gradient):
        judged.append(rule)
        return judge_under(rule, program, gradient=gradient)

    monkeypatch.setattr(judge, "judge_under", note)
    narrow = [program for seed in range(12) if has_narrow_samplers(program := prune(draw_network(seed)))]
    assert {judge_network(program).verdict for program in narrow[:2]} == {"exact"}
    assert judged == ["cell", "published"] * 2
