"""Recognises an output that was divided by its L2 norm, as embeddings are."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.score_paths import ARRANGING, first_changing, walk_back


def scales_to_unit_length(node: ir.Node) -> bool:
    """Tells whether a node divides by an L2 norm."""
    if node.op_type == "LpNormalization":
        return True
    operands = [each for each in node.inputs if each is not None]
    if node.op_type not in ("Div", "Mul") or len(operands) < 2:
        return False
    return any(is_norm(each) for each in (operands[1:] if node.op_type == "Div" else operands))


NORM_PATH = ARRANGING | {"Expand", "Clip", "Max", "Add", "Reciprocal"}
"""Operators between a norm and the division by it, which add an epsilon to the norm and repeat it."""


def is_norm(value: ir.Value) -> bool:
    """Tells whether a value is an L2 norm, kept from 0 and repeated or not."""
    node = value.producer()
    while node is not None and node.op_type in NORM_PATH and (inner := first_changing(node)) is not None:
        node = inner.producer()
    if node is None:
        return False
    if node.op_type == "ReduceL2":
        return True
    return node.op_type in ("Sqrt", "Pow", "Rsqrt") and any(
        upstream.op_type in ("ReduceSumSquare", "ReduceSum") for upstream in walk_back(node, NORM_PATH, depth=4)
    )
