"""Which of several candidates for the class output are computed from one another, and what that says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from masktool.exporters.class_candidates import Candidate, Claims, speaks_for
from masktool.exporters.score_paths import LINEAR, core_of, is_constant


def drop_inner(candidates: Sequence[Candidate], model: ir.Model) -> list[Candidate]:
    """Returns the candidates that no other output is computed from; of several with the same scores, the first."""
    if len(model.graph.outputs) == 1:
        return list(candidates)
    distinct = list({core_of(each.value): each for each in reversed(candidates)}.values())[::-1]
    every = {core_of(value) for value in model.graph.outputs}
    return [each for each in distinct if not is_inner(each, [head for head in distinct if not head.against], every)]


def is_inner(candidate: Candidate, heads: Sequence[Candidate], every: set[ir.Value]) -> bool:
    """Tells whether a candidate is a feature map of another output, or another candidate's scores before their softmax.

    What ends in a softmax or sigmoid itself is no feature map: a second head may read the first one's answer.
    """
    near, far = reach_of(core_of(candidate.value))
    if candidate.end is None and far & every:
        return True
    return any(core_of(head.value) in near and may_be_made_of(head, candidate) for head in heads)


def may_be_made_of(head: Candidate, inner: Candidate) -> bool:
    """Tells whether a head may count instead of a candidate that it is computed from.

    It may where there is evidence for it, where it has as many columns, or where the candidate itself does not end in a
    softmax or sigmoid.
    """
    return inner.end is None or bool(head.backing) or head.columns == inner.columns


def find_rivals(candidates: Sequence[Candidate], claims: Claims) -> list[Candidate]:
    """Returns the candidates without evidence that are computed from one that ends in a softmax or sigmoid.

    The one that they are computed from may be the weights of an attention, a gate or a router, and they the class
    scores; or it holds the class scores, which a second head reads. Its name may tell.
    """
    reached: set[ir.Value] = set()
    for each in candidates:
        if each.end is not None and not each.against and not speaks_for(each.value, claims):
            reached |= set().union(*reach_of(core_of(each.value))) | reach_of_twins(each)
    return [each for each in candidates if not each.backing and not each.against and core_of(each.value) in reached]


def weigh_uses(candidate: Candidate, candidates: Sequence[Candidate], model: ir.Model, claims: Claims) -> Candidate:
    """Returns a candidate with one more objection where an output that holds no class scores is computed from it."""
    known = claims.labels is not None or claims.kind is not None or speaks_for(candidate.value, claims)
    if candidate.end is None or known:
        return candidate
    (_, far), twins = reach_of(core_of(candidate.value)), reach_of_twins(candidate)
    heads = {each.name for each in candidates if not each.against}
    others = {each.name: core_of(each) for each in model.graph.outputs if each.name not in heads}
    reasons = [
        f"{name!r} is computed from {'it' if core in far else 'the values in front of it'} through a linear layer"
        for name, core in others.items()
        if core in far | twins
    ]
    return dataclasses.replace(candidate, against=(*candidate.against, *reasons))


def reach_of_twins(candidate: Candidate) -> set[ir.Value]:
    """Returns the values computed, through a linear layer, from the scores before a candidate's softmax or sigmoid.

    A graph may hold that softmax or sigmoid twice: once for its output, and once for the layers behind it.
    """
    producer = core_of(candidate.value).producer()
    scores = [] if producer is None else [each for each in producer.inputs if each is not None]
    return {value for each in scores if not is_constant(each) for value in reach_of(each)[1]}


def reach_of(start: ir.Value) -> tuple[set[ir.Value], set[ir.Value]]:
    """Returns the values computed from a value: without a linear layer on the way, and with at least one."""
    near: set[ir.Value] = set()
    far: set[ir.Value] = set()
    waiting = [(start, False)]
    while waiting:
        value, beyond = waiting.pop()
        for node in value.consumers():
            crossed = beyond or node.op_type in LINEAR
            found = far if crossed else near
            for output in node.outputs:
                if output not in found:
                    found.add(output)
                    waiting.append((output, crossed))
    return near, far
