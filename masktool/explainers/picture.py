"""Draws a map over its photograph: title, photograph beside overlay, colour bar. Pillow and numpy only."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from masktool.explainers import colormap
from masktool.explainers.marks import Mark, draw_marks
from masktool.explainers.outlines import draw_region
from masktool.printable import printable

SMALLEST_PANEL = 400
LARGEST_PANEL = 640
"""Longest side of one panel in pixels: below, the text would not fit beside it; above, the file grows for nothing."""
THINNEST_PANEL = 64
"""Shortest side of one panel, even where that distorts a strip: a map must be seen."""
WIDEST_VIEW = 4.0
"""Aspect ratio beyond which the picture shows only the surroundings of what the model saw."""
STACK_FROM = 2.0
"""Aspect ratio from which the panels stand one above the other."""
BLOCKY_UP_TO = 48
"""Longest side in pixels of photographs that are enlarged without smoothing: their pixels are the content."""

LEAST_WIDTH = 560
MARGIN = 16
FONT_SHARE = 28
LEAST_FONT = 2
"""Text is a 28th of the panel and 2 pixels: 16 to 24 pixels."""
SMALL_TEXT = 0.8
LONGEST_LINE = 1000
"""Number of characters of a text that are drawn at most: no picture is wide enough for more."""
TITLE_HEIGHT, HEAD_HEIGHT, BAR_HEIGHT, FOOT_LINE_HEIGHT = 1.35, 2.7, 2.2, 1.2
"""Heights in units of the text size: title, title and subtitle, colour bar and ticks, and each line beneath."""

DESATURATION = 0.8
"""Share of grey in the photograph beneath: enough colour to know it by, little enough to read the map's."""
STRONGEST = 0.85
WEAKEST_SEQUENTIAL = 0.35
"""Opacity of the map at its largest value, and at the smallest where every value means something."""
ALPHA_POWER = 0.7
"""Exponent from a value's strength to its opacity, below 1 so that middling values show."""
CAP = 99.0
"""Percentile where the colours of a capped map end: a few pixels of a gradient outshine all others. Source: Smilkov et
al., "SmoothGrad: removing noise by adding noise", 2017, section 3.1."""
NEGLIGIBLE = 1e-3
"""Share of the bar below which a tick's value is 0: no pixel of the bar shows the difference."""
TICK_DIGITS = (3, 4, 5, 6)
"""Digits of a tick's number: the fewest that tell the three apart."""
BAR_BACKGROUND = 0.75
"""Grey beneath the colour bar, about a photograph's mean lightness."""

HATCH_SPACING = 12
HATCH_WIDTH = 4
"""Pixels along a row from one stripe to the next, and of these a stripe's own."""
HATCH_SHADES = (0.62, 0.80)
"""Lightness of the stripes and of the gaps over what the crop left out."""
HATCH_OPACITY = 0.72

INK = (25, 25, 28)
FAINT_INK = (95, 95, 102)
PAPER = (255, 255, 255)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Floats = NDArray[np.floating[Any]]
View = tuple[int, int, int, int]
"""A box (left, top, right, bottom) in the photograph's pixels."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale by which values become colours and opacities.

    Attributes:
        low: the value at the colour bar's left end.
        high: the value at the colour bar's right end.
        signed: whether colours go from opposing to supporting around 0, rather than from dark to bright.
    """

    low: float
    high: float
    signed: bool

    @classmethod
    def of(cls, attributions: Floats, signed: bool, capped: bool = False) -> Scale:
        """Fits a scale to a map: symmetric around 0 when signed, else from the least to the largest value.

        A capped scale ends at a percentile of the values, unless that leaves nothing to tell apart.
        """
        finite = attributions[np.isfinite(attributions)]
        if finite.size == 0:
            return cls(0.0, 0.0, signed)
        if signed:
            largest = find_end(np.abs(finite), 0.0, capped)
            return cls(-largest, largest, signed)
        least = float(finite.min())
        return cls(least, find_end(finite, least, capped), signed)

    @property
    def flat(self) -> bool:
        """Whether all values of the map are the same."""
        return not self.high > self.low

    def colours(self, values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns sRGB colours (..., 3) in 0..1 and opacities (..., 1) of values (...)."""
        if self.flat:
            return np.zeros((*values.shape, 3)), np.zeros((*values.shape, 1))
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        if self.signed:
            strength = np.abs(2 * share - 1)
            alpha = STRONGEST * strength**ALPHA_POWER
            return colormap.colour(share, colormap.diverging()), alpha[..., None]
        alpha = WEAKEST_SEQUENTIAL + (STRONGEST - WEAKEST_SEQUENTIAL) * share
        return colormap.colour(share, colormap.sequential()), alpha[..., None]

    def ticks(self) -> list[tuple[float, str]]:
        """Returns (place along the bar in 0..1, text) of the ticks."""
        if self.flat:
            return [(0.5, f"{self.low + 0.0:.3g} everywhere")]  # -0.0 + 0.0 is 0.0
        middle = (self.low + self.high) / 2
        if abs(middle) < NEGLIGIBLE * (self.high - self.low):
            middle = 0.0
        sign = "+" if self.signed else ""
        for digits in TICK_DIGITS:
            texts = [f"{self.low:.{digits}g}", f"{middle:.{digits}g}", f"{self.high:{sign}.{digits}g}"]
            if len(set(texts)) == len(texts):
                break
        return list(zip((0.0, 0.5, 1.0), texts, strict=True))


def find_end(values: Floats, least: float, capped: bool) -> float:
    """Returns where a scale ends: at the largest value, or where it is capped and not flat, at a percentile."""
    end = float(np.percentile(values, CAP)) if capped else least
    return end if end > least else float(values.max())


def draw_picture(
    photograph: Image.Image,
    attributions: Floats,
    *,
    signed: bool,
    title: str,
    subtitle: str,
    meaning: str,
    capped: bool = False,
    region: NDArray[np.bool_] | None = None,
    marks: Sequence[Mark] = (),
) -> Image.Image:
    """Draws the photograph and beside it the map over the photograph, with a title and a colour bar.

    Args:
        photograph: the photograph, RGB, (H0, W0) pixels.
        attributions: the map (H0, W0); NaN where the model saw nothing, which is hatched.
        signed: whether the sign of an attribution separates support from opposition, see :class:`Scale`.
        title: the title, one line in large letters.
        subtitle: the subtitle, one line in small letters.
        meaning: what an attribution is, in words, for the line beneath the colour bar.
        capped: whether the colours end at a percentile of the values, see :meth:`Scale.of`.
        region: the photograph's pixels of a region that is outlined, (H0, W0); None for none.
        marks: boxes to draw, in the photograph's pixels.
    """
    scale = Scale.of(attributions, signed, capped)
    view = choose_view(attributions)
    size = choose_panel(view)
    original, values = render_photograph(photograph, view, size), render_map(attributions, view, size)
    panels = [original, overlay(original, values, scale)]
    if region is not None:
        for panel in panels:
            draw_region(panel, region, view)
    for panel in panels:
        draw_marks(panel, marks, view)
    lines = caption(meaning, scale, values, view, photograph.size, capped)
    return lay_out(panels, scale, (title, subtitle), lines)


def caption(
    meaning: str, scale: Scale, values: Floats, view: View, size: tuple[int, int], capped: bool = False
) -> list[str]:
    """Returns the lines beneath the colour bar: what values and hatching mean, and what of the photograph is shown."""
    parts = [meaning]
    if capped and not scale.flat:
        parts.append(f"colours end at the map's {CAP:g}th percentile")
    elif not scale.signed and not scale.flat:
        parts.append("colours span the map's own range")
    if np.isnan(values).any():
        parts.append("hatched: not seen by the model")
    width, height = view[2] - view[0], view[3] - view[1]
    if (width, height) != size:
        parts.append(f"{width} x {height} of {size[0]} x {size[1]} pixels shown")
    if max(width, height) * THINNEST_PANEL > LARGEST_PANEL * min(width, height):
        parts.append(f"{width} x {height} pixels, not drawn to scale")
    return parts


def choose_view(attributions: Floats) -> View:
    """Returns the box (left, top, right, bottom) to show: all, or of a very long photograph what surrounds the map."""
    height, width = attributions.shape
    seen = np.isfinite(attributions)
    left, right = widen(np.any(seen, axis=0), round(WIDEST_VIEW * height))
    top, bottom = widen(np.any(seen, axis=1), round(WIDEST_VIEW * width))
    return left, top, right, bottom


def widen(seen: NDArray[np.bool_], length: int) -> tuple[int, int]:
    """Returns (start, end) of a stretch of ``length``, or longer if need be, around the positions that were seen."""
    if len(seen) <= length or not seen.any():
        return 0, len(seen)
    positions = np.flatnonzero(seen)
    first, last = int(positions[0]), int(positions[-1]) + 1
    start = max(0, min((first + last - length) // 2, len(seen) - length))
    return min(start, first), max(start + length, last)


def choose_panel(view: View) -> tuple[int, int]:
    """Returns (width, height) in pixels of one panel that shows the view."""
    width, height = view[2] - view[0], view[3] - view[1]
    longest = max(width, height)
    factor = min(max(longest, SMALLEST_PANEL), LARGEST_PANEL) / longest
    return max(THINNEST_PANEL, round(width * factor)), max(THINNEST_PANEL, round(height * factor))


def render_photograph(photograph: Image.Image, view: View, size: tuple[int, int]) -> Image.Image:
    """Returns the part of the photograph that is shown, at the panel's size."""
    longest = max(view[2] - view[0], view[3] - view[1])
    resample = Image.Resampling.NEAREST if longest <= BLOCKY_UP_TO else Image.Resampling.LANCZOS
    return photograph.resize(size, resample, box=view)


def render_map(attributions: Floats, view: View, size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns the map (height, width) at the panel's size; NaN where more than half of what a pixel shows is NaN."""
    part = attributions[view[1] : view[3], view[0] : view[2]]
    seen = np.isfinite(part)
    weights = resize_plane(seen.astype(np.float32), size)
    values = resize_plane(np.where(seen, part, 0).astype(np.float32), size)
    return np.where(weights >= 0.5, values / np.maximum(weights, 0.5), np.nan).astype(np.float32)


def resize_plane(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resizes one float channel bilinearly, with antialiasing, to (width, height)."""
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))


def overlay(photograph: Image.Image, values: NDArray[np.float32], scale: Scale) -> Image.Image:
    """Lays the map over the faded photograph, and hatches what the model did not see."""
    pixels = np.asarray(photograph, np.float64) / 255
    grey = np.asarray(photograph.convert("L"), np.float64)[:, :, None] / 255
    faded = DESATURATION * grey + (1 - DESATURATION) * pixels
    seen = np.isfinite(values)
    colours, alpha = scale.colours(np.where(seen, values, 0))
    painted = np.where(seen[:, :, None], lay_over(faded, colours, alpha), hatch(faded))
    return Image.fromarray(np.rint(painted * 255).astype(np.uint8))


def lay_over(
    beneath: NDArray[np.float64], above: NDArray[np.float64], alpha: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns ``above`` laid over ``beneath`` with the given opacity."""
    return alpha * above + (1 - alpha) * beneath


def hatch(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covers pixels (h, w, 3) with diagonal stripes of two greys that let the photograph show through."""
    rows, columns = np.indices(pixels.shape[:2])
    stripe = (rows + columns) % HATCH_SPACING < HATCH_WIDTH
    shade = np.where(stripe, *HATCH_SHADES)[:, :, None]
    return lay_over(pixels, np.broadcast_to(shade, pixels.shape), np.full((1, 1, 1), HATCH_OPACITY))


def lay_out(panels: list[Image.Image], scale: Scale, head_lines: tuple[str, str], foot_lines: list[str]) -> Image.Image:
    """Returns the whole picture: title, panels, colour bar and lines beneath on white paper."""
    width, height = panels[0].size
    stacked = width >= STACK_FROM * height
    gaps = (len(panels) - 1) * MARGIN
    used = (width, len(panels) * height + gaps) if stacked else (len(panels) * width + gaps, height)
    text_size = max(used[0] if stacked else max(panels[0].size), SMALLEST_PANEL) // FONT_SHARE + LEAST_FONT
    large, small = ImageFont.load_default(text_size), ImageFont.load_default(round(SMALL_TEXT * text_size))
    canvas_width = max(used[0], LEAST_WIDTH) + 2 * MARGIN
    head = MARGIN + round(HEAD_HEIGHT * text_size)
    foot = 2 * MARGIN + round((BAR_HEIGHT + FOOT_LINE_HEIGHT * len(foot_lines)) * text_size)
    canvas = Image.new("RGB", (canvas_width, head + used[1] + foot), PAPER)
    draw = ImageDraw.Draw(canvas)
    room = canvas_width - 2 * MARGIN
    draw.text((MARGIN, MARGIN), fit_line(head_lines[0], large, room), INK, large)
    draw.text(
        (MARGIN, MARGIN + round(TITLE_HEIGHT * text_size)), fit_line(head_lines[1], small, room), FAINT_INK, small
    )
    left = (canvas_width - used[0]) // 2
    step = (0, height + MARGIN) if stacked else (width + MARGIN, 0)
    for index, panel in enumerate(panels):
        canvas.paste(panel, (left + index * step[0], head + index * step[1]))
    draw_colour_bar(canvas, scale, (MARGIN, head + used[1] + MARGIN), room, small)
    for index, line in enumerate(foot_lines):
        y = canvas.height - MARGIN - round(FOOT_LINE_HEIGHT * text_size * (len(foot_lines) - index))
        draw.text((canvas_width // 2, y), fit_line(line, small, room), FAINT_INK, small, anchor="ma")
    return canvas


def draw_colour_bar(canvas: Image.Image, scale: Scale, corner: tuple[int, int], width: int, font: Font) -> None:
    """Draws the colour bar as the colours appear over a photograph, with ticks."""
    left, top = corner
    draw = ImageDraw.Draw(canvas)
    unit = round(draw.textbbox((0, 0), "0", font)[3])
    bar_width, bar_height = width // 2, unit
    values = np.linspace(scale.low, scale.high, bar_width)[None].repeat(bar_height, axis=0)
    colours, alpha = scale.colours(values)
    pixels = lay_over(np.full((*values.shape, 3), BAR_BACKGROUND), colours, alpha)
    start = left + (width - bar_width) // 2
    canvas.paste(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), (start, top))
    draw.rectangle((start - 1, top - 1, start + bar_width, top + bar_height), outline=FAINT_INK)
    for place, text in scale.ticks():
        x = start + round(place * (bar_width - 1))
        draw.line((x, top + bar_height, x, top + bar_height + unit // 3), FAINT_INK)
        draw.text((x, top + bar_height + unit // 2), text, INK, font, anchor="ma")


def fit_line(text: str, font: Font, room: float) -> str:
    """Returns a text as one line, cut with an ellipsis so that it fits into ``room`` pixels."""
    line = printable(text[:LONGEST_LINE])
    if len(text) <= LONGEST_LINE and font.getlength(line) <= room:
        return line
    fitting = bisect.bisect_right(range(len(line)), room, key=lambda n: font.getlength(line[:n] + "..."))
    return line[: max(fitting - 1, 0)].rstrip() + "..."
