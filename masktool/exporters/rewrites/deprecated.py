"""Rewrites GroupNormalization-18, which ONNX deprecated and ONNX Runtime still runs, in operators that stayed.

GroupNormalization of opset 18 scales groups; that of opset 21, an operator of the same name, scales channels. ONNX's
checker refuses the former in opsets 18 to 20, and no mask rule knows it.

Source: ONNX operator specification, the function body of GroupNormalization-18.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.exporters.node_inputs import input_of
from masktool.exporters.opset import opset_of
from masktool.exporters.rewrites.replacement import Replacement, Rewrite, rewrite_nodes

SCALES_CHANNELS_SINCE = 21
"""Opset from which on GroupNormalization is the operator that stayed."""


def rewrite_deprecated(model: ir.Model) -> None:
    """Rewrites every GroupNormalization of opsets 18 to 20, in subgraphs too, in place; types need not be known."""
    graphs = list(model.graphs()) if opset_of(model) < SCALES_CHANNELS_SINCE else []
    for function in model.functions.values():
        if function.opset_imports.get("", opset_of(model)) < SCALES_CHANNELS_SINCE:
            graphs += [function.graph, *function.subgraphs()]
    changed = [rewrite_nodes(graph, REWRITES) for graph in graphs]
    if any(changed):
        common.NameFixPass()(model)


def rewrite_group_normalization(new: Replacement, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """GroupNormalization-18: (x - mean) / √(variance + ε) over each group, then one scale and bias for each group."""
    value, scale, bias = (input_of(node, index) for index in range(3))
    groups = node.attributes.get_int("num_groups")
    if value is None or scale is None or bias is None or groups is None:
        return None
    node.name = node.name or node.outputs[0].name  # by which messages call what takes its place
    epsilon = new.emit("Constant", value_float=node.attributes.get_float("epsilon", 1e-5))
    grouped = new.emit("Reshape", value, new.emit("Constant", value_ints=[0, groups, -1]))
    along = new.emit("Constant", value_ints=[2])
    mean = new.emit("ReduceMean", grouped, along)
    mean_of_squares = new.emit("ReduceMean", new.emit("Mul", grouped, grouped), along)
    variance = new.emit("Sub", mean_of_squares, new.emit("Mul", mean, mean))
    deviation = new.emit("Sqrt", new.emit("Add", variance, new.emit("CastLike", epsilon, value)))
    normal = new.emit("Div", new.emit("Sub", grouped, mean), deviation)
    by_group = new.emit("Constant", value_ints=[1, -1, 1])
    scaled = new.emit("Mul", new.emit("Reshape", scale, by_group), normal)
    shifted = new.emit("Add", scaled, new.emit("Reshape", bias, by_group))
    return [new.emit("Reshape", shifted, new.emit("Shape", value))]


REWRITES: dict[tuple[str, str], Rewrite] = {("", "GroupNormalization"): rewrite_group_normalization}
