"""Whether a box lies in its image."""

from __future__ import annotations

import math

from masktool.datasets.dataset import Box
from masktool.datasets.objects import Size

ROUNDING = 1.0
"""Pixels by which a box may leave its image without a remark: annotations are rounded, and count from 0 or 1."""


def fit_box(box: Box, size: Size | None) -> tuple[Box | None, str | None]:
    """Returns a box cut at the image's borders, and a remark on what is wrong with the box.

    Args:
        box: (x0, y0, x1, y1) in the image's pixels.
        size: size of the image; None where it is unknown, and no border is checked.

    Returns:
        The box, None where nothing of it can be used; the remark, None where there is none. A box that is
        not finite, reversed, empty or wholly outside is dropped; one that is partly outside is cut, with a remark where
        it is more than rounding.
    """
    shown = "(" + ", ".join(f"{each:g}" for each in box) + ")"
    if not all(math.isfinite(each) for each in box):
        return None, f"box {shown} is not finite; not used"
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return None, f"box {shown} is reversed or empty; not used"
    if size is None:
        return box, None
    width, height = size
    cut = (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return None, f"box {shown} lies outside the image, {width:g} x {height:g}; not used"
    beyond = max(abs(new - old) for new, old in zip(cut, box, strict=True))
    return cut, f"box {shown} leaves the image, {width:g} x {height:g}; cut" if beyond > ROUNDING else None
