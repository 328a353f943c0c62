"""Finds the operator that selected, compared or decided an output's values, which then are no scores of all classes."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.score_paths import (
    ARRANGING,
    CLIPPING,
    NORMALISING,
    PICKING,
    SCALING,
    SUMS,
    is_constant,
    lone_operand,
)

SELECTING = frozenset(
    {
        *("TopK", "ArgMax", "ArgMin", "Hardmax", "OneHot", "NonMaxSuppression", "NonZero", "Unique"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor"),
    }
)
"""Operators whose results are decisions, places or the best few, never one score for each class."""
ELEMENTWISE = frozenset(
    {
        *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Softplus", "Softsign"),
        *("Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Pow", "Sign", "Round", "Floor", "Ceil", "Erf", "Mish"),
        *("Tanh", "HardSigmoid", "HardSwish", "Clip", "LogSoftmax"),
    }
)
"""Operators that compute each value from one value: what they make of a selection is a selection too."""
DEEPEST = 8
"""Number of nested sums of selections that are followed."""


def find_selection(value: ir.Value, depth: int = DEEPEST) -> ir.Node | None:
    """Returns the node that selected, compared or decided the values of an output; None where no node did.

    Args:
        value: the output, or a value that it is computed from.
        depth: the number of nested sums of two selections that are followed.
    """
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            continue
        if node.op_type in SELECTING:
            return node
        passes = node.op_type in ARRANGING | PICKING | NORMALISING | ELEMENTWISE
        if passes or (node.op_type in SCALING and lone_operand(node) is not None):
            found = [each for each in passed_values(node) if each not in seen]
            seen.update(found)
            waiting.extend(found)
        elif node.op_type in SCALING | SUMS | CLIPPING and depth:
            changing = [each for each in node.inputs if each is not None and not is_constant(each)]
            selections = [find_selection(each, depth - 1) for each in changing]
            if selections and all(selections):
                return selections[0]
    return None


def passed_values(node: ir.Node) -> list[ir.Value]:
    """Returns the inputs whose values a node passes on or picks from: of a Where the two values, and the condition only
    where both are constant, so that it alone tells images apart.
    """
    inputs = [each for each in node.inputs if each is not None]
    if node.op_type != "Where" or all(map(is_constant, inputs[1:])):
        return inputs
    return inputs[1:]
