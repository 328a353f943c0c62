"""What is proved of random graphs' batches, held to ONNX Runtime.

More of them: ``python -m fuzz independence --count 10000``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import pytest

from fuzz.independence.drawing import Drawer, draw_graph
from fuzz.independence.judge import judge_graph, judge_seed
from fuzz.independence.rules import RULES
from masktool.exporters.independence import states

COUNT = 350
LEAST_PROVED = 0.45
LEAST_MIXING = 0.25
MOST_UNDECIDED = 0.02
"""Of the graphs that are drawn: a proof that gave up would never be wrong."""


@pytest.mark.fuzz
def test_what_is_proved_of_random_graphs_is_so():
    judgements = {seed: judge_seed(seed) for seed in range(COUNT)}
    faults = {seed: each.fault for seed, each in judgements.items() if each.fault}
    assert not faults
    verdicts = Counter(each.verdict for each in judgements.values())
    assert verdicts["proved"] >= LEAST_PROVED * COUNT
    assert verdicts["mixing"] >= LEAST_MIXING * COUNT
    assert verdicts["unproved"] <= MOST_UNDECIDED * COUNT


def test_every_rule_gives_nodes_that_run():
    rules, accepted = list(dict.fromkeys(RULES)), set()
    for seed in range(20):
        drawer = Drawer(seed)
        for rule in drawer.rng.permutation(len(rules)):
            if drawer.step(rules[rule]):
                accepted.add(rules[rule].__name__)
    assert accepted == {rule.__name__ for rule in rules}


WRONG = {"ReduceMean": "reduce", "Softmax": "along", "CumSum": "cumulate", "Slice": "cut", "Gather": "gather"}
"""Operators whose rule is spoiled, and what draws them."""


@pytest.mark.parametrize("op_type", WRONG)
def test_a_wrong_rule_is_noticed(op_type: str, monkeypatch: pytest.MonkeyPatch):
    def lose_nothing(graph: states.BatchGraph, node: Any) -> list[states.State]:
        return [states.Rows(0)] * len(node.outputs)

    monkeypatch.setitem(states.IMAGE_RULES._entries, op_type, lose_nothing)
    rules = [rule for rule in RULES if rule.__name__ in (WRONG[op_type], "unary", "binary")]
    judged = (judge_graph(draw_graph(seed, rules), seed) for seed in range(300))
    assert any("proved, and" in each.fault for each in judged)


def test_a_squeeze_that_drops_nothing_keeps_a_batch_of_one():
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[3, 2, 4, 5] x) => (float[3, 2, 4, 5] y)
        { s = Squeeze (x) y = Abs (s) }"""
    judgement = judge_graph(onnx.parser.parse_model(text), 0)
    assert (judgement.verdict, judgement.fault) == ("proved", "")
