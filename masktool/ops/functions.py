"""The model-local functions of exported files, in the domain ``masktool``.

``NeighborFill`` is one round of the fill that goes in front of every window larger than one pixel::

    y      = x · m
    filled = y + (1 − m) · (J ∗ y) / (J ∗ m + ε)
    known  = min(m + J ∗ m, 1)

J is a 3×3 box of ones over zero padding. Every missing pixel gets the mean of its known neighbours and becomes known; a kept pixel
keeps its value exactly. Source: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural
Networks", 2023, section 3, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN

NEIGHBOR_FILL = "NeighborFill"
FILL_EPSILON = 1e-5
"""The published ε: it keeps a pixel without any known neighbour at 0."""
BOX_PIXELS = 9

# J ∗ y is written as 9 times the average over the box, padding counted: runtimes have fast kernels for pooling.
_NEIGHBOR_FILL_TEXT = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} (x, mask) => (filled, known)
{{
    y = Mul (x, mask)
    box_of_y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (y)
    box_of_mask = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (mask)
    one_f = Constant <value_float = 1.0> ()
    one = CastLike (one_f, mask)
    epsilon_f = Constant <value_float = {epsilon}> ()
    epsilon = CastLike (epsilon_f, mask)
    missing = Sub (one, mask)
    divisor = Add (box_of_mask, epsilon)
    weight = Div (missing, divisor)
    fill = Mul (box_of_y, weight)
    filled = Add (y, fill)
    nine_f = Constant <value_float = {pixels}> ()
    nine = CastLike (nine_f, mask)
    sum_of_mask = Mul (box_of_mask, nine)
    reached = Add (mask, sum_of_mask)
    known = Min (reached, one)
}}
"""


def neighbor_fill(opset: int) -> ir.Function:
    """Returns the function ``masktool::NeighborFill`` (x: N × C × h × w, mask: N × 1 × h × w) → (filled, known)."""
    text = _NEIGHBOR_FILL_TEXT.format(
        domain=FUNCTION_DOMAIN,
        name=NEIGHBOR_FILL,
        opset=opset,
        epsilon=f"{FILL_EPSILON / BOX_PIXELS:.10f}",
        pixels=float(BOX_PIXELS),
    )
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
