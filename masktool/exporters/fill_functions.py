"""The model-local functions of files whose input is filled, in the domain ``masktool``.

x is the image, m the mask, b the baseline, J a Gaussian, ε ``BLUR_PRIOR``::

    Fill        x · m + b · (1 − m)
    Keep        x · m
    MeanOfKept  Σ x·m / Σ m over height and width, per channel; 0 where nothing is kept. ``MeanOfKept1D`` and
                ``MeanOfKept3D`` do the same over the places of signals and volumes
    BlurOfKept  (J ∗ (x·m) + ε · mean) / (J ∗ m + ε)

A ``Where`` hides missing pixels from all of these functions, since 0 · NaN is NaN. Baselines are computed in single
precision, whatever the image's type: a half cannot hold the sum over an image.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from masktool.contract import FUNCTION_DOMAIN

BLUR_PRIOR = "1e-2"
"""Weight of the image's mean beside the blur, whose kept pixels weigh 1 at most together: the mean takes over, without
a seam, where the Gaussian's tail sees hardly anything kept."""

MEAN_OF_KEPT: Mapping[int, str] = {1: "MeanOfKept1D", 2: "MeanOfKept", 3: "MeanOfKept3D"}
"""The function of the mean, by the number of axes of places."""

_TEXTS = {
    "Fill": """ (x, mask, baseline) => (filled)
{
    m = CastLike (mask, x)
    b = CastLike (baseline, x)
    zero_f = Constant <value_float = 0.0> ()
    zero = CastLike (zero_f, x)
    one_f = Constant <value_float = 1.0> ()
    one = CastLike (one_f, x)
    is_kept = Greater (m, zero)
    visible = Where (is_kept, x, zero)
    image_share = Mul (visible, m)
    missing = Sub (one, m)
    baseline_share = Mul (b, missing)
    filled = Add (image_share, baseline_share)
}
""",
    "Keep": """ (x, mask) => (kept)
{
    image = Cast <to = 1> (x)
    zero = Constant <value_float = 0.0> ()
    is_kept = Greater (mask, zero)
    visible = Where (is_kept, image, zero)
    kept = Mul (visible, mask)
}
""",
    "MeanOfKept": """ (kept, mask) => (mean)
{
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    height_and_width = Constant <value_ints = [2, 3]> ()
    total = ReduceSum (kept, height_and_width)
    weight = ReduceSum (mask, height_and_width)
    is_any_kept = Greater (weight, zero)
    divisor = Where (is_any_kept, weight, one)
    mean = Div (total, divisor)
}
""",
    "BlurOfKept": """ <channels, column_pads, row_pads> (kept, mask, mean, columns, rows) => (blur)
{
    first = Constant <value_ints = [0]> ()
    second = Constant <value_ints = [1]> ()
    column = Slice (columns, first, second)
    row = Slice (rows, first, second)
    kept_in_columns = Conv <group: int = @channels, pads: ints = @column_pads> (kept, columns)
    total = Conv <group: int = @channels, pads: ints = @row_pads> (kept_in_columns, rows)
    mask_in_columns = Conv <pads: ints = @column_pads> (mask, column)
    weight = Conv <pads: ints = @row_pads> (mask_in_columns, row)
    prior = Constant <value_float = BLUR_PRIOR> ()
    share_of_mean = Mul (mean, prior)
    weighted = Add (total, share_of_mean)
    divisor = Add (weight, prior)
    blur = Div (weighted, divisor)
}
""",
}
for _count, _name in MEAN_OF_KEPT.items():
    _axes = ", ".join(str(2 + axis) for axis in range(_count))
    _TEXTS[_name] = _TEXTS["MeanOfKept"].replace("[2, 3]", f"[{_axes}]")


def fill_function(name: str, opset: int) -> ir.Function:
    """Returns one of the model-local functions that fill an image.

    Args:
        name: the name of the function. ``Fill`` takes x in any layout, the mask and the baseline aligned with it, and
            gives the filled image; ``Keep`` takes x (N, C, ...) and the mask (M, 1, ...); ``MeanOfKept`` takes what
            ``Keep`` gives and the mask, and gives (M, C, 1, ...); ``BlurOfKept`` takes these three and the Gaussian as
            columns (C, 1, k, 1) and rows (C, 1, 1, k), its attributes are C and the pads of both, and gives
            (M, C, H, W).
        opset: the opset of the model.
    """
    head = f'<domain: "{FUNCTION_DOMAIN}", opset_import: ["" : {opset}]> {name}'
    text = head + _TEXTS[name].replace("BLUR_PRIOR", BLUR_PRIOR)
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
