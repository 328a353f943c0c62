"""Figures by which maps made of gradients are judged."""

from __future__ import annotations

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, Flow

COMPLETENESS_GAP = "completeness_gap"
"""Figure: the total that a map should have, less its sum, in units of the target's logit."""


def emit_completeness_gap(flow: Flow, total: ir.Value, saliency: ir.Value) -> dict[str, ir.Value]:
    """Emits the gap (n,) between the totals (n,) that maps (n, 1, h, w) should have and their sums, by its name.

    Sums go along rows first and then along columns: fewer summands each lose less to rounding.
    """
    sums = flow.emit("ReduceSum", flow.emit("ReduceSum", saliency, flow.ints(3), keepdims=0), flow.ints(1, 2))
    return {COMPLETENESS_GAP: flow.typed(flow.emit("Sub", total, flow.reshape(sums, -1)), FLOAT, [None])}
