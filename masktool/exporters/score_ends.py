"""Reads off the end of a graph what an output holds: unbounded scores, shares of a softmax or sigmoid, or neither."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from masktool.contract import OutputKind
from masktool.exporters.score_paths import (
    ARRANGING,
    CLIPPING,
    LINEAR,
    MEANS,
    NORMALISING,
    PICKING,
    SCALING,
    SUMS,
    behind_clips,
    core_of,
    find_score_producer,
    is_constant,
    scaled_operand,
)
from masktool.exporters.written_out import is_one, is_sigmoid, shared_axes, softmax_over_columns

BOUNDING = NORMALISING | {"Tanh", "HardSigmoid", "Clip"}
"""Operators whose results lie in a fixed range: a mean of these is no logit."""
KINDS_OF_END: Mapping[str, tuple[OutputKind, ...]] = {
    "Softmax": ("probabilities",),
    "LogSoftmax": ("logits",),  # softmax of log-probabilities gives the probabilities back
    "Sigmoid": ("sigmoid",),
    "Sigmoid of one column": ("binary-probability", "sigmoid"),
    "Complement": ("probabilities",),  # p and 1 - p of one sigmoid
}
"""Kinds of output that may have such an end; the first is taken where the user says nothing."""


def end_of(value: ir.Value) -> ir.Node | None:
    """Returns the node that an output ends in, in front of nodes that rearrange it or scale an unbounded score."""
    node = find_score_producer(value)
    if is_unbounded(value):
        while node is not None and (inner := scaled_operand(node)) is not None:
            node = find_score_producer(inner)
    return node


def is_unbounded(value: ir.Value) -> bool:
    """Tells whether an output ends in a linear layer or in a mean over places, scaled and shifted or not, or in sums of
    such: a classifier that does gives unbounded scores, as cross-entropy training wants them. So do regressions and
    embeddings.
    """
    start = find_score_producer(value)
    waiting, seen = [start], {start}
    while waiting:
        node = waiting.pop()
        if node is None:
            return False
        if node.op_type in LINEAR | MEANS:
            continue
        inner = scaled_operand(node)
        operands = list(node.inputs) if node.op_type in SUMS else [inner]
        changing = [each for each in operands if each is not None and not is_constant(each)]
        if not changing:
            return False
        found = {find_score_producer(each) for each in changing} - seen
        seen |= found
        waiting.extend(found)
    return start is not None and not averages_shares(start)


def name_end(value: ir.Value, columns: int | None) -> str | None:
    """Returns what the end of a graph says of an output, a key of ``KINDS_OF_END``; None where it says nothing."""
    node, trail = behind_clips(value)
    if node is None:
        return None
    clipped = any(each.op_type in CLIPPING for each in trail)
    if node.op_type in ("Exp", "Log") and node.inputs[0] is not None:
        inverse = {"Exp": ("LogSoftmax", "Softmax"), "Log": ("Softmax", "LogSoftmax")}[node.op_type]
        before = softmax_over_columns(*behind_clips(node.inputs[0]), [node, *trail], columns)
        found = inverse[1] if before == inverse[0] else None
    elif is_sigmoid(node):
        return "Sigmoid of one column" if columns == 1 else "Sigmoid"
    elif columns == 2 and complements(node):
        return "Complement"
    else:
        found = softmax_over_columns(node, [], trail, columns)
    return None if found == "LogSoftmax" and clipped else found


def complements(node: ir.Node) -> bool:
    """Tells whether a node joins p and 1 - p, of one sigmoid p, side by side."""
    if node.op_type != "Concat" or len(node.inputs) != 2 or node.attributes.get_int("axis", 0) not in (1, -1):
        return False
    for share, rest in (node.inputs, node.inputs[::-1]):
        difference = None if rest is None else find_score_producer(rest)
        if share is None or difference is None or difference.op_type != "Sub" or not is_one(difference.inputs[0]):
            continue
        taken = difference.inputs[1]
        if taken is not None and core_of(taken) is core_of(share) and name_end(share, 1) is not None:
            return True
    return False


def averages_shares(end: ir.Node) -> bool:
    """Tells whether a sum or mean is taken of values that a softmax, a sigmoid or the like has bounded already."""
    waiting, seen = [end], {end}
    while waiting:
        node = waiting.pop()
        if node.op_type in BOUNDING or is_sigmoid(node) or shared_axes(node) is not None:
            return True
        if node.op_type in LINEAR:
            continue
        if node is end or node.op_type in ARRANGING | PICKING | SCALING | MEANS | SUMS:
            producers = (each.producer() for each in node.inputs if each is not None)
            found = {each for each in producers if each is not None and each not in seen}
            seen |= found
            waiting.extend(found)
    return False
