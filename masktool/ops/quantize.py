"""Quantisation and its reversal.

Both work on each place by itself: ``m' = m``. An arbitrary number under the mask stays within the range of its
integers, and what is known to be 0 stays the integer that stands for 0. Scales and zero points, one for all or one for
each channel or block, are weights; quantised weights carry no mask.

Source: ONNX operator specification, QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, gradient_rule
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples


@mask_rule("QuantizeLinear", "DequantizeLinear")
def mask_quantize(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps the mask, and the zeros under it."""
    graph.set_state(node.outputs[0], state_of_input(graph, node))


@gradient_rule("QuantizeLinear", "DequantizeLinear")
def vjp_quantize(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:  # noqa: ARG001
    """Refuses: rounding has no gradient but 0.

    Raises:
        RuleError: always.
    """
    raise RuleError("quantised numbers have no gradient; export the network before it was quantised")


SCALES = """s = Constant <value = float {0.03}> () z = Constant <value = uint8 {110}> ()
    t = Constant <value = float {0.1}> () o = Constant <value = uint8 {128}> () """
QUANTISED_IMAGE = SCALES + "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
QUANTISED_WEIGHT = """u = Constant <value = float {0.02}> () v = Constant <value = int8 {0}> ()
    i = QuantizeLinear (w, u, v) k = DequantizeLinear (i, u, v) """
RESULT = " r = QuantizeLinear (c, t, o) y = DequantizeLinear (r, t, o)"

add_samples(
    "QuantizeLinear",
    Sample(
        "around a convolution",
        QUANTISED_IMAGE + QUANTISED_WEIGHT + "c = Conv <pads = [1, 1, 1, 1]> (d, k)" + RESULT,
        {"w": (3, 4, 3, 3)},
    ),
    Sample(
        "two convolutions and a residual addition",
        QUANTISED_IMAGE
        + QUANTISED_WEIGHT
        + "a = Conv <pads = [1, 1, 1, 1]> (d, k) aq = QuantizeLinear (a, t, o) ad = DequantizeLinear (aq, t, o) "
        "b = Conv <pads = [1, 1, 1, 1]> (ad, k) bq = QuantizeLinear (b, t, o) bd = DequantizeLinear (bq, t, o) "
        "c = Add (d, bd)" + RESULT,
        {"w": (4, 4, 3, 3)},
    ),
    Sample(
        "around average pooling",
        QUANTISED_IMAGE + "c = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (d)" + RESULT,
    ),
    Sample("around global average pooling", QUANTISED_IMAGE + "c = GlobalAveragePool (d)" + RESULT),
    Sample(
        "around max pooling", QUANTISED_IMAGE + "c = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (d)" + RESULT
    ),
    Sample(
        "around a concatenation with another range",
        QUANTISED_IMAGE + "n = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) nq = QuantizeLinear (n, t, o) "
        "nd = DequantizeLinear (nq, t, o) c = Concat <axis = 1> (d, nd)" + RESULT,
    ),
)
