"""Draws a bar for each group of bands beside a picture of the input. Pillow and numpy only, as all explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from masktool.explainers.picture import (
    FAINT_INK,
    FONT_SHARE,
    FOOT_LINE_HEIGHT,
    HEAD_HEIGHT,
    INK,
    LEAST_FONT,
    MARGIN,
    NEGLIGIBLE,
    PAPER,
    SMALL_TEXT,
    SMALLEST_PANEL,
    TITLE_HEIGHT,
    Font,
    choose_panel,
    fit_line,
    render_photograph,
)

VALUE_COLOUR, LOST_COLOUR = (0, 114, 178), (230, 159, 0)
"""Colours of the Shapley value and of what is lost alone: Okabe and Ito's blue and orange, told apart without hue."""
CHART_WIDTH = 480
ROW_HEIGHT = 2.4
"""Least height of a group's row in units of the text size."""
NAME_SHARE, NUMBER_SHARE = 0.24, 0.17
"""Parts of the chart's width for the groups' names and for the numbers."""
NORMAL_95 = 1.96
LEGEND = ("Shapley value", "lost without it alone")
INTERVAL = "line: its 95 % interval"


class Bar(NamedTuple):
    """What is drawn of one group: name, Shapley value with its standard error, and what is lost without it alone."""

    name: str
    value: float
    error: float
    lost: float


class Frame(NamedTuple):
    """Where a chart's numbers lie on the canvas: the pixels of the lowest and the highest, and these numbers."""

    left: int
    right: int
    low: float
    high: float

    def at(self, number: float) -> int:
        """Returns the pixel of a number along the axis."""
        return round(self.left + (number - self.low) / (self.high - self.low) * (self.right - self.left))


def draw_band_chart(
    picture: Image.Image | None, bars: Sequence[Bar], *, title: str, subtitle: str, meaning: str
) -> Image.Image:
    """Draws the picture of the input and beside it the chart, with a title above and what bars mean beneath.

    Args:
        picture: the picture, RGB; None draws the chart alone.
        bars: the groups, in their order.
        title: the title, one line in large letters.
        subtitle: the subtitle, one line in small letters.
        meaning: what a Shapley value is, in words.
    """
    panel = (0, SMALLEST_PANEL) if picture is None else choose_panel((0, 0, *picture.size))
    text_size = max(*panel, SMALLEST_PANEL) // FONT_SHARE + LEAST_FONT
    large, small = ImageFont.load_default(text_size), ImageFont.load_default(round(SMALL_TEXT * text_size))
    height = max(panel[1], round(ROW_HEIGHT * text_size * (len(bars) + 1)))
    across = (panel[0] + MARGIN if picture is not None else 0) + CHART_WIDTH
    head, foot = MARGIN + round(HEAD_HEIGHT * text_size), round(2 * FOOT_LINE_HEIGHT * text_size) + 2 * MARGIN
    canvas = Image.new("RGB", (across + 2 * MARGIN, head + height + foot), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), fit_line(title, large, across), INK, large)
    draw.text((MARGIN, MARGIN + round(TITLE_HEIGHT * text_size)), fit_line(subtitle, small, across), FAINT_INK, small)
    if picture is not None:
        shown = render_photograph(picture, (0, 0, *picture.size), panel)
        canvas.paste(shown, (MARGIN, head + (height - panel[1]) // 2))
    left = canvas.width - MARGIN - CHART_WIDTH
    draw_bars_of_groups(draw, bars, (left, head, left + CHART_WIDTH, head + height), small, text_size)
    sure = all(bar.error == 0 for bar in bars)
    draw_legend(draw, (MARGIN, head + height + MARGIN // 2), small, text_size, "" if sure else INTERVAL)
    draw.text(
        (MARGIN, head + height + MARGIN // 2 + round(FOOT_LINE_HEIGHT * text_size)),
        fit_line(meaning, small, across),
        FAINT_INK,
        small,
    )
    return canvas


def draw_bars_of_groups(
    draw: ImageDraw.ImageDraw, bars: Sequence[Bar], box: tuple[int, int, int, int], font: Font, text_size: int
) -> None:
    """Draws a row for each group into a box (left, top, right, bottom): its name, two bars from 0, and its number."""
    left, top, right, bottom = box
    width = right - left
    axis = round(1.2 * text_size)
    ends = [
        number for bar in bars for number in (bar.lost, bar.value - half_interval(bar), bar.value + half_interval(bar))
    ]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if not high > low:
        low, high = -1.0, 1.0
    low, high = (0.0 if abs(end) < NEGLIGIBLE * (high - low) else end for end in (low, high))
    frame = Frame(left + round(NAME_SHARE * width), right - round(NUMBER_SHARE * width), low, high)
    row = (bottom - top - axis) / len(bars)
    for position, bar in enumerate(bars):
        middle = round(top + (position + 0.5) * row)
        name = fit_line(bar.name, font, NAME_SHARE * width - MARGIN)
        draw.text((frame.left - MARGIN // 2, middle), name, INK, font, anchor="rm")
        draw.text((right, middle), f"{bar.value:+.3g}", INK, font, anchor="rm")
        draw_two_bars(draw, bar, frame, middle, row)
    zero = frame.at(0)
    draw.line((zero, top, zero, bottom - axis), INK)
    for number in {low, 0.0, high}:
        draw.line((frame.at(number), bottom - axis, frame.at(number), bottom - axis + 4), FAINT_INK)
    for number in (low, high):
        if number != 0:
            draw.text((frame.at(number), bottom), f"{number:.3g}", FAINT_INK, font, anchor="ms")
    if min(zero - frame.left, frame.right - zero) > 3 * text_size or 0.0 in (low, high):
        draw.text((zero, bottom), "0", FAINT_INK, font, anchor="ms")


def draw_two_bars(draw: ImageDraw.ImageDraw, bar: Bar, frame: Frame, middle: int, row: float) -> None:
    """Draws the Shapley value with its interval, and beneath it, thinner, what is lost without the group alone."""
    thick, thin = (min(max(round(share * row), least), most) for share, least, most in ((0.36, 3, 30), (0.16, 2, 13)))
    top = middle - (thick + thin + 2) // 2
    for number, (start, end), colour in (
        (bar.value, (top, top + thick), VALUE_COLOUR),
        (bar.lost, (top + thick + 2, top + thick + 2 + thin), LOST_COLOUR),
    ):
        first, last = sorted((frame.at(0), frame.at(number)))
        draw.rectangle((first, start, last, end), fill=colour)
    if bar.error > 0:
        y = top + thick // 2
        first, last = frame.at(bar.value - half_interval(bar)), frame.at(bar.value + half_interval(bar))
        draw.rectangle((first, y - 2, last, y + 2), fill=PAPER)
        draw.line((first, y, last, y), INK, 2)


def half_interval(bar: Bar) -> float:
    """Returns the half-width of the 95 % interval of a group's Shapley value."""
    return NORMAL_95 * bar.error


def draw_legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int], font: Font, text_size: int, more: str) -> None:
    """Draws what the two colours mean, from a corner (left, top) on, and more text behind."""
    left, top = corner
    side = round(0.7 * text_size)
    for text, colour in zip(LEGEND, (VALUE_COLOUR, LOST_COLOUR), strict=True):
        draw.rectangle((left, top + 2, left + side, top + 2 + side), fill=colour)
        draw.text((left + side + MARGIN // 2, top), text, INK, font)
        left += side + MARGIN // 2 + round(font.getlength(text)) + 2 * MARGIN
    draw.text((left, top), more, INK, font)
