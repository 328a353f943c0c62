"""Draws maps of signals, volumes and videos, whose input is numbers and no photograph. Pillow and numpy only.

A signal is drawn as one line for each channel, over the colours of the map, and beneath them the map as a line. A
volume is drawn as three slices through the largest value of its map, and what has three channels as a video is, by a
sheet of its frames; each as it is, and again with the map over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from masktool.contract import Layout
from masktool.explainers.picture import (
    BAR_BACKGROUND,
    FAINT_INK,
    INK,
    PAPER,
    Floats,
    Scale,
    caption,
    lay_out,
    lay_over,
    overlay,
    render_map,
    render_photograph,
)
from masktool.explainers.pixels import array_pixels, scale_to_bytes

SIGNAL_WIDTH = 960
"""Width of the lines of a signal in pixels."""
LANE_HEIGHTS = (96, 36)
"""Height of the line of a channel in pixels: of one or a few channels, and of many."""
FEW_CHANNELS = 4
MOST_CHANNELS = 12
"""Channels of a signal that are drawn; the others are named beneath."""
MAP_HEIGHT = 120
"""Height of the map as a line."""
OVERSAMPLING = 2
"""Lines are drawn so many times as large, and made smaller: Pillow's have no soft edges."""
LINE_WIDTH = 3
"""Width of a line, oversampled."""
PADDING = 0.08
"""Share of a lane that stays free above and beneath its line."""
TILE = 260
"""Longest side of a slice, in pixels."""
FRAME_TILE = 150
"""Longest side of a frame of a video, in pixels."""
MOST_FRAMES = 12
FRAME_COLUMNS = 4
GAP = 10
"""Pixels between tiles."""
LABEL = 15
"""Size of the text beneath a tile."""
COLOUR_CHANNELS = 3
PLANES = ("depth", "height", "width")
"""Axes of a volume across which its slices lie."""
VOLUME: Layout = "NCDHW"


class Words(NamedTuple):
    """What stands in a picture: a title and a subtitle, and what a value of the map means."""

    title: str
    subtitle: str
    meaning: str


class Tile(NamedTuple):
    """A slice or frame: its pixels (h, w, 3) uint8, the map over it (h, w), and what it is."""

    pixels: NDArray[np.uint8]
    values: Floats
    label: str


def draw_numbers(
    numbers: NDArray[np.float32], attributions: Floats, *, signed: bool, words: Words, capped: bool
) -> Image.Image:
    """Draws a map over the signal, volume or video that it is of.

    Args:
        numbers: the input, (C, L) or (C, D, H, W).
        attributions: the map, (L,) or (D, H, W).
        signed: whether the sign of an attribution separates support from opposition.
        words: the words of the picture.
        capped: whether the colours end at a percentile of the values.
    """
    scale = Scale.of(attributions, signed, capped)
    lines = caption(words.meaning, scale, np.zeros((1, 1)), (0, 0, 1, 1), (1, 1), capped)
    if attributions.ndim == 1:
        panels = [draw_signal(numbers, attributions, scale)]
        if len(numbers) > MOST_CHANNELS:
            lines.append(f"{MOST_CHANNELS} of {len(numbers)} channels shown")
    else:
        is_video = len(numbers) == COLOUR_CHANNELS
        tiles = list(
            spaced_frames(numbers, attributions) if is_video else slices_through_largest(numbers, attributions)
        )
        panels = lay_tiles(tiles, scale, FRAME_TILE if is_video else TILE, FRAME_COLUMNS if is_video else len(tiles))
        if is_video and len(tiles) < len(attributions):
            lines.append(f"{len(tiles)} of {len(attributions)} frames shown")
        elif not is_video:
            lines.append("slices through the map's largest value")
    return lay_out(panels, scale, (words.title, words.subtitle), lines)


def draw_signal(signal: NDArray[np.float32], attributions: Floats, scale: Scale) -> Image.Image:
    """Returns the lines of a signal's channels over the colours of its map, and the map as a line beneath them."""
    shown = signal[:MOST_CHANNELS]
    lane = LANE_HEIGHTS[len(shown) > FEW_CHANNELS]
    height = lane * len(shown)
    columns = np.arange(SIGNAL_WIDTH) * len(attributions) // SIGNAL_WIDTH
    colours, alpha = scale.colours(attributions[columns])
    band = lay_over(np.full(colours.shape, (1 + BAR_BACKGROUND) / 2), colours, alpha)
    painted = np.rint(band * 255).astype(np.uint8)[None].repeat(height, axis=0)
    canvas = Image.new("RGB", (SIGNAL_WIDTH, height + GAP + MAP_HEIGHT + LABEL + GAP), PAPER)
    canvas.paste(Image.fromarray(painted), (0, 0))
    for index, channel in enumerate(shown):
        draw_line(canvas, channel, (0, index * lane, SIGNAL_WIDTH, (index + 1) * lane))
    beneath = (0, height + GAP, SIGNAL_WIDTH, height + GAP + MAP_HEIGHT)
    draw_line(canvas, attributions, beneath, ends=(min(scale.low, 0.0), max(scale.high, 0.0)))
    label_places(canvas, len(attributions), beneath[3])
    return canvas


def draw_line(
    canvas: Image.Image,
    values: Floats,
    box: tuple[int, int, int, int],
    ends: tuple[float, float] | None = None,
) -> None:
    """Draws numbers as a line into a box of a picture.

    Args:
        canvas: the picture.
        values: the numbers (L,); NaN and infinity are left out of the range.
        box: the box (left, top, right, bottom) in pixels.
        ends: the numbers at the bottom and the top, between which a line of zeros is drawn; None takes the range.
    """
    left, top, right, bottom = box
    size = ((right - left) * OVERSAMPLING, (bottom - top) * OVERSAMPLING)
    finite = values[np.isfinite(values)]
    low, high = ends or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0))
    span = high - low or 1.0
    part = canvas.crop(box).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(part)

    def height_of(value: float) -> float:
        share = float(np.clip((value - low) / span, 0, 1)) if high > low else 0.5
        return (1 - PADDING - (1 - 2 * PADDING) * share) * (size[1] - 1)

    if ends is not None:
        draw.line([(0, height_of(0.0)), (size[0], height_of(0.0))], FAINT_INK, 1)
    points = [
        ((index + 0.5) * size[0] / len(values), height_of(value))
        for index, value in enumerate(np.nan_to_num(values, nan=low, posinf=high, neginf=low).tolist())
    ]
    draw.line(points * 2 if len(points) == 1 else points, INK, LINE_WIDTH, joint="curve")
    canvas.paste(part.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))


def label_places(canvas: Image.Image, length: int, top: int) -> None:
    """Writes the numbers of the first, middle and last place beneath the lines of a signal."""
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LABEL)
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        draw.text((share * (canvas.width - 1), top + 2), str(round(share * (length - 1))), FAINT_INK, font, anchor)


def slices_through_largest(volume: NDArray[np.float32], attributions: Floats) -> Iterator[Tile]:
    """Yields the slices of a volume through the largest value of its map, across each of its axes."""
    pixels = array_pixels(volume[None], VOLUME)
    strength = np.where(np.isfinite(attributions), np.abs(attributions), -1)
    centre = np.unravel_index(int(strength.argmax()), strength.shape)
    for axis, (name, place) in enumerate(zip(PLANES, centre, strict=True)):
        label = f"{name} {int(place)} of {attributions.shape[axis]}"
        yield Tile(np.moveaxis(pixels, axis, 0)[place], np.moveaxis(attributions, axis, 0)[place], label)


def spaced_frames(video: NDArray[np.float32], attributions: Floats) -> Iterator[Tile]:
    """Yields frames of a video, evenly spaced, in its own colours."""
    pixels = scale_to_bytes(np.moveaxis(video, 0, -1).copy())
    count = min(MOST_FRAMES, len(attributions))
    for number in np.unique(np.rint(np.linspace(0, len(attributions) - 1, count)).astype(int)).tolist():
        yield Tile(pixels[number], attributions[number], f"frame {number}")


def lay_tiles(tiles: Sequence[Tile], scale: Scale, side: int, columns: int) -> list[Image.Image]:
    """Returns two sheets of tiles: as they are, and with the map over them."""
    sizes = [tile_size(tile.values.shape, side) for tile in tiles]
    cell = max(width for width, _ in sizes), max(height for _, height in sizes)
    plain = [
        render_photograph(Image.fromarray(np.ascontiguousarray(tile.pixels)), whole_of(tile), size)
        for tile, size in zip(tiles, sizes, strict=True)
    ]
    over = [
        overlay(picture, render_map(tile.values, whole_of(tile), size), scale)
        for picture, tile, size in zip(plain, tiles, sizes, strict=True)
    ]
    labels = [tile.label for tile in tiles]
    return [make_sheet(pictures, labels, cell, columns) for pictures in (plain, over)]


def whole_of(tile: Tile) -> tuple[int, int, int, int]:
    """Returns the box of all pixels of a tile."""
    return 0, 0, tile.values.shape[1], tile.values.shape[0]


def tile_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Returns (width, height) in pixels of a slice (h, w) that is drawn ``side`` pixels long."""
    height, width = shape
    factor = side / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def make_sheet(
    pictures: Sequence[Image.Image], labels: Sequence[str], cell: tuple[int, int], columns: int
) -> Image.Image:
    """Returns pictures in rows and columns, each in the middle of its cell with a label beneath."""
    columns = min(columns, len(pictures))
    rows, step = math.ceil(len(pictures) / columns), (cell[0] + GAP, cell[1] + LABEL + GAP)
    sheet = Image.new("RGB", (columns * step[0] - GAP, rows * step[1]), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * step[0], row * step[1]
        sheet.paste(picture, (left + (cell[0] - picture.width) // 2, top + (cell[1] - picture.height) // 2))
        draw.text((left + cell[0] // 2, top + cell[1] + 1), label, FAINT_INK, font, anchor="ma")
    return sheet
