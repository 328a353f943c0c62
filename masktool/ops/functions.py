"""The model-local functions of exported files, in the domain ``masktool``.

``NeighborFill`` is one round of the fill that goes in front of every window larger than one pixel::

    y      = x · m
    filled = y + (1 − m) · (J ∗ y) / (J ∗ m + ε)
    known  = min(m + J ∗ m, 1)

J is a 3×3 box of ones over zero padding. Every missing pixel gets the mean of its known neighbours and becomes known;
a kept pixel keeps its value exactly. ε is the function's attribute: the published one would give 1 / ε, which float16
does not hold, where no neighbour is known, and infinity times 0 is NaN.

Source: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023, section 3,
https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN

NEIGHBOR_FILL = "NeighborFill"
FILL_EPSILON = 1e-5
"""The published ε: it keeps a pixel without any known neighbour at 0."""
HALF_EPSILON = 2.0**-14
"""The ε of float16: its smallest number that no device takes for 0, whose inverse is within its range. The fill differs
by less than float16 rounds."""

# J ∗ x is a depthwise convolution: of all ways to write it (average pool, shifted sums, matrix products) it was the
# fastest by two to ten times on the CPU provider, and the only one that is fast for every number of channels.
_NEIGHBOR_FILL_TEXT = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <channels, epsilon> (x, mask, box) => (filled, known)
{{
    y = Mul (x, mask)
    sum_of_y = Conv <group: int = @channels, pads = [1, 1, 1, 1]> (y, box)
    mask_box_f = Constant <value = float[1, 1, 3, 3] {{1, 1, 1, 1, 1, 1, 1, 1, 1}}> ()
    mask_box = CastLike (mask_box_f, mask)
    sum_of_mask = Conv <pads = [1, 1, 1, 1]> (mask, mask_box)
    one_f = Constant <value_float = 1.0> ()
    one = CastLike (one_f, mask)
    epsilon_f = Constant <value_float: float = @epsilon> ()
    epsilon = CastLike (epsilon_f, mask)
    missing = Sub (one, mask)
    divisor = Add (sum_of_mask, epsilon)
    weight = Div (missing, divisor)
    fill = Mul (sum_of_y, weight)
    filled = Add (y, fill)
    reached = Add (mask, sum_of_mask)
    known = Clip (reached, , one)
}}
"""


def neighbor_fill(opset: int) -> ir.Function:
    """Returns the function ``masktool::NeighborFill``.

    Its inputs are x (N, C, h, w), mask (M, 1, h, w) and box, ones of shape (C, 1, 3, 3); its attributes are
    ``channels``, C, and ``epsilon``; its outputs are filled (N, C, h, w) and known (M, 1, h, w), the mask of the next
    round.
    """
    text = _NEIGHBOR_FILL_TEXT.format(domain=FUNCTION_DOMAIN, name=NEIGHBOR_FILL, opset=opset)
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
