"""The model-local functions of exported files, in the domain ``masktool``.

``NeighborFill`` is one round of the fill that goes in front of every window larger than one pixel, ``FillWeight`` what
it takes from the mask::

    y      = x · m
    filled = y + weight · (J ∗ y)
    weight = (1 − m) / (J ∗ m + ε)
    known  = min(m + J ∗ m, 1)

J is a 3×3 box of ones over zero padding, of volumes a 3×3×3 one. Every missing pixel gets the mean of its known
neighbours and becomes known; a kept pixel keeps its value exactly. ε is an attribute: the published one would give
1 / ε, which float16 does not hold, where no neighbour is known, and infinity times 0 is NaN.

Source: Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks", 2023, section 3,
https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN

NEIGHBOR_FILL: Mapping[int, str] = {2: "NeighborFill", 3: "NeighborFill3D"}
"""The function by the number of axes of places. A signal is filled as an image of one row is."""
FILL_WEIGHT: Mapping[int, str] = {2: "FillWeight", 3: "FillWeight3D"}
"""The function by the number of axes of places."""
FILL_EPSILON = 1e-5
"""The published ε: it keeps a pixel without any known neighbour at 0."""
HALF_EPSILON = 2.0**-14
"""The ε of float16: its smallest number that no device takes for 0, whose inverse is within its range. The fill differs
by less than float16 rounds."""

# J ∗ x is a depthwise convolution: of average pool, shifted sums and matrix products, it alone stays in the blocked
# layout of ONNX Runtime's other convolutions. The mask has one channel, which that layout would pad to 16: there, a
# transposed convolution by the same box, which ONNX Runtime leaves in the ordinary layout, takes a quarter of the time.
_NEIGHBOR_FILL_TEXT = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <channels> (x, mask, weight, box) => (filled)
{{
    y = Mul (x, mask)
    sum_of_y = Conv <group: int = @channels, pads = [{pads}]> (y, box)
    fill = Mul (sum_of_y, weight)
    filled = Add (y, fill)
}}
"""
_FILL_WEIGHT_TEXT = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <epsilon> (mask) => (weight, known)
{{
    box_f = Constant <value = float[1, 1, {sides}] {{{ones}}}> ()
    box = CastLike (box_f, mask)
    sum_of_mask = ConvTranspose <pads = [{pads}]> (mask, box)
    one_f = Constant <value_float = 1.0> ()
    one = CastLike (one_f, mask)
    epsilon_f = Constant <value_float: float = @epsilon> ()
    epsilon = CastLike (epsilon_f, mask)
    missing = Sub (one, mask)
    divisor = Add (sum_of_mask, epsilon)
    weight = Div (missing, divisor)
    reached = Add (mask, sum_of_mask)
    known = Clip (reached, , one)
}}
"""


def fill_functions(opset: int) -> list[ir.Function]:
    """Returns the functions of the fill, for maps of any number of axes of places."""
    return [write(opset, axes) for axes in NEIGHBOR_FILL for write in (neighbor_fill, fill_weight)]


def neighbor_fill(opset: int, axes: int = 2) -> ir.Function:
    """Returns the function ``masktool::NeighborFill``, or that of maps with another number of axes of places.

    Its inputs are x (N, C, h, w), mask and weight, (M, 1, h, w) or (M, C, h, w), and box, ones of shape (C, 1, 3, 3);
    its attribute is ``channels``, C; its output is filled (N, C, h, w).
    """
    return read_function(_NEIGHBOR_FILL_TEXT, NEIGHBOR_FILL[axes], opset, axes)


def fill_weight(opset: int, axes: int = 2) -> ir.Function:
    """Returns the function ``masktool::FillWeight``, or that of maps with another number of axes of places.

    Its input is mask (M, 1, h, w), its attribute ``epsilon``; its outputs are weight (M, 1, h, w) and known
    (M, 1, h, w), the mask of the next round.
    """
    return read_function(_FILL_WEIGHT_TEXT, FILL_WEIGHT[axes], opset, axes)


def read_function(text: str, name: str, opset: int, axes: int) -> ir.Function:
    """Returns a function of maps with so many axes of places from its text in ONNX's syntax."""
    pads, sides, ones = (", ".join([item] * count) for item, count in (("1", 2 * axes), ("3", axes), ("1", 3**axes)))
    filled_in = text.format(domain=FUNCTION_DOMAIN, name=name, opset=opset, pads=pads, sides=sides, ones=ones)
    return ir.serde.deserialize_function(onnx.parser.parse_function(filled_in))
