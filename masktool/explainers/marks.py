"""Boxes in a picture: what is explained, drawn boldly, and what was found beside it, drawn thinly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from masktool.printable import printable

Box = tuple[float, float, float, float]
"""A box (left, top, right, bottom), in continuous pixels: pixel i covers [i, i + 1]."""
CHOSEN, OTHER = (255, 214, 10), (235, 235, 235)
EDGE = (20, 20, 20)
"""Colours of the box that is explained, of others, and of the dark edge that shows both on bright ground."""
BOLD, THIN = 3, 1
LABEL_SIZE = 13
LONGEST_TEXT = 40


class Mark(NamedTuple):
    """A box to draw in a picture.

    Attributes:
        box: the box, in the picture's pixels.
        text: what stands at its corner; empty for nothing.
        chosen: whether it is what is explained.
    """

    box: Box
    text: str
    chosen: bool


def draw_marks(panel: Image.Image, marks: Sequence[Mark], view: tuple[int, int, int, int]) -> None:
    """Draws boxes into a panel, what is explained last.

    Args:
        panel: the panel, which shows the view.
        marks: the boxes.
        view: the part of the picture that the panel shows, (left, top, right, bottom) in the picture's pixels.
    """
    draw = ImageDraw.Draw(panel)
    scale_x, scale_y = panel.width / (view[2] - view[0]), panel.height / (view[3] - view[1])
    for mark in sorted(marks, key=lambda each: each.chosen):
        left, right = ((x - view[0]) * scale_x for x in (mark.box[0], mark.box[2]))
        top, bottom = ((y - view[1]) * scale_y for y in (mark.box[1], mark.box[3]))
        draw_box(draw, (left, top, right - 1, bottom - 1), CHOSEN if mark.chosen else OTHER, mark.chosen)
        if mark.text and mark.chosen:
            draw_label(draw, mark.text, left, top, panel.size)


def draw_box(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], bold: bool) -> None:
    """Draws a box with a dark edge on either side; what has no area is drawn as one pixel at least."""
    left, top, right, bottom = box
    corners = (left, top, max(left, right), max(top, bottom))
    width = BOLD if bold else THIN
    grown = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
    draw.rectangle(grown, outline=EDGE, width=width + 2)
    draw.rectangle(corners, outline=colour, width=width)


def draw_label(draw: ImageDraw.ImageDraw, text: str, left: float, top: float, size: tuple[int, int]) -> None:
    """Draws a text above a box's left upper corner, or within it where the panel has no room above."""
    font = ImageFont.load_default(LABEL_SIZE)
    line = printable(text[:LONGEST_TEXT])
    _, _, width, height = draw.textbbox((0, 0), line, font)
    x = min(max(left, 0), max(size[0] - width - 4, 0))
    y = top - height - 5 if top >= height + 5 else max(top + BOLD + 1, 0)
    draw.rectangle((x, y, x + width + 4, y + height + 3), fill=CHOSEN)
    draw.text((x + 2, y + 1), line, EDGE, font)
