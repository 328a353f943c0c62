"""The outline of a region, drawn into the panels of a picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

LINE, EDGE = (255, 214, 10), (20, 20, 20)
"""Colours of the line, and of the dark one around it that shows it on bright ground."""
LINE_WIDTH, EDGE_WIDTH = 3, 7
"""Widths in pixels of the line and of the dark one beneath it: odd, for Pillow's filters."""


def draw_region(panel: Image.Image, region: NDArray[np.bool_], view: tuple[int, int, int, int]) -> None:
    """Draws the outline of a region into a panel.

    Args:
        panel: the panel, which shows the view.
        region: the pixels of the region, (H0, W0) of the picture.
        view: the part of the picture that the panel shows, (left, top, right, bottom) in the picture's pixels.
    """
    inside = Image.fromarray(region[view[1] : view[3], view[0] : view[2]].astype(np.uint8) * 255)
    enlarged = inside.resize(panel.size, Image.Resampling.NEAREST)
    for colour, line in zip((EDGE, LINE), widen_edges(enlarged), strict=True):
        panel.paste(colour, mask=line)


def widen_edges(inside: Image.Image) -> Iterator[Image.Image]:
    """Yields the lines along the edge of what is not 0: the wide one that lies beneath, and the narrow one."""
    for width in (EDGE_WIDTH, LINE_WIDTH):
        grown, shrunk = inside.filter(ImageFilter.MaxFilter(width)), inside.filter(ImageFilter.MinFilter(width))
        yield Image.fromarray(np.asarray(grown) - np.asarray(shrunk))
