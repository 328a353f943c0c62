"""Operators that read only the shape of a value: their result has no place in the image."""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.gradients import gradient_rule, passes_nothing
from masktool.ops.graph import MaskedGraph, mask_rule
from masktool.ops.samples import Sample, add_samples


@mask_rule("Shape", "Size")
def mask_shape(graph: MaskedGraph, node: ir.Node) -> None:
    """Leaves the result without a mask."""
    graph.set_state(node.outputs[0], None)


gradient_rule("ConstantOfShape", "Shape", "Size")(passes_nothing)

add_samples(
    "Shape",
    Sample(
        "batch of a reshape",
        "s = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (s, m) f = Reshape (x, t) y = Gemm (f, w)",
        {"w": (396, 5)},
        {"m": (-1,)},
    ),
)
