"""Pooling over windows and over the whole image.

* ``MaxPool``: the maximum over kept places only; ``m' = maxpool(m)``; an empty window gives 0.
* ``AveragePool`` and ``LpPool``: ``pool(x · m) · pool(1) / pool(m)``, every pool with the original's own padding and
  count rule, so that the factor is exactly 1 under a mask of ones; ``m' = maxpool(m)``, which for a binary mask is
  [pool(m) > 0]; an empty window gives 0.
* ``GlobalAveragePool``, ``GlobalLpPool``, ``GlobalMaxPool``: the same over the whole image; the mask is spent. An empty
  mask gives 0.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646. Average pooling there divides by the size
of the window, not by what of it is kept; ours agrees with the global pooling of the same paper.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at
from masktool.ops.graph import Masked, MaskedGraph
from masktool.ops.kept import average_kept, extreme_kept
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule
from masktool.ops.windows import image_state, pool_mask, window_of

NON_NEGATIVE = ("Abs", "HardSigmoid", "Relu", "Sigmoid", "Softplus")
KEEPS_SIGN = ("AveragePool", "Concat", "Identity", "MaxPool")


@mask_rule("MaxPool")
def mask_max_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Hides missing places from the maximum; an empty window gives 0.

    Where no value is negative (behind a ReLU), a 0 hides as well as −∞, and makes empty windows 0 by itself.
    """
    if len(node.outputs) > 1:
        raise RuleError("its second output (indices) has no mask rule")
    window, state = window_of(node, graph)
    value, output = input_at(node, 0), node.outputs[0]
    new_state = Masked(pool_mask(graph, state.mask, window), zeroed=True)
    graph.set_state(output, new_state)
    if is_non_negative(value):
        node.replace_input_with(0, graph.zeroed(value))
        return
    node.replace_input_with(0, graph.replaced(value, empty=float("-inf")))
    zero = graph.constant(0, dtype_of(output))
    graph.set_state(graph.emit_after(output, "Where", graph.kept(output), output, zero), new_state)


def is_non_negative(value: ir.Value | None) -> bool:
    """Whether a value can be seen to hold no negative number, from the operators that made it."""
    if value is None:
        return False
    if (tensor := ir.convenience.get_const_tensor(value)) is not None:
        return not value.is_graph_input() and bool((tensor.numpy() >= 0).all())
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in KEEPS_SIGN:
        return all(is_non_negative(source) for source in producer.inputs)
    return producer.op_type in NON_NEGATIVE


@mask_rule("AveragePool", "LpPool")
def mask_average_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Averages over kept places; an empty window gives 0."""
    window, state = window_of(node, graph)
    own = {name: node.attributes[name].value for name in ("count_include_pad", "p") if name in node.attributes}
    pooled = average_kept(graph, node, **window.attributes, **own)
    graph.set_state(pooled, Masked(pool_mask(graph, state.mask, window), zeroed=True))


@mask_rule("GlobalAveragePool", "GlobalLpPool")
def mask_global_average_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Averages over kept places; the mask is spent."""
    image_state(graph, node)
    own: dict[str, Any] = {"p": node.attributes["p"].value} if "p" in node.attributes else {}
    average_kept(graph, node, **own)


@mask_rule("GlobalMaxPool")
def mask_global_max_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Takes the maximum over kept places; the mask is spent."""
    image_state(graph, node)
    extreme_kept(graph, node, "GlobalMaxPool", empty=float("-inf"))


add_samples(
    "MaxPool",
    Sample("3x3, stride 2", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)"),
    Sample("ceil mode", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)"),
    Sample("dilated", "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)"),
    Sample(
        "after negative values, before a convolution",
        "n = Neg (x) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (n) y = Conv <pads = [1, 1, 1, 1]> (p, w)",
        {"w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "AveragePool",
    Sample("2x2, stride 2", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    Sample(
        "padding counted", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"
    ),
    Sample("padding not counted", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x)"),
    Sample("ceil mode", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)"),
)
add_samples("GlobalAveragePool", Sample("whole image", "y = GlobalAveragePool (x)"))
add_samples("GlobalMaxPool", Sample("of negative values", "a = Abs (x) n = Neg (a) y = GlobalMaxPool (n)"))
add_samples(
    "LpPool",
    Sample("2x2, stride 2", "y = LpPool <kernel_shape = [2, 2], strides = [2, 2], p = 2> (x)"),
    Sample("third norm, padded", "y = LpPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], p = 3> (x)"),
)
add_samples("GlobalLpPool", Sample("whole image", "y = GlobalLpPool <p = 2> (x)"))
