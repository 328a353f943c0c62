"""A data set of pictures whose explanation is known: one of eight shapes in a random colour on blurred noise.

The outline alone carries the class. Colour, background, area, position and rotation are drawn without regard to it, so
that an explanation which points anywhere but at the object is wrong. Every length is a share of the picture's shorter
side: the set looks the same at any resolution. numpy and Pillow only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LABELS = ("circle", "square", "triangle", "star", "cross", "heart", "crescent", "arrow")
SIZE = 64
"""Height and width in pixels at which the demo network sees the set."""
MEAN = (0.5, 0.5, 0.5)
STD = (0.13, 0.13, 0.13)
"""Mean and standard deviation of the pixels in 0..1, per channel, rounded, that normalise the demo network's input."""

AREA_RANGE = (0.03, 0.08)
"""Share of the square of the shorter side that the object covers."""
BASE_SHIFT = 0.1
"""How far the background's mean may lie from grey, per channel, in 0..1."""
BACKGROUND_DEVIATION = (0.06, 0.12)
"""Standard deviation of the background's noise, in 0..1."""
BLUR_RANGE = (0.02, 0.06)
"""Sigma of the background's Gaussian blur."""
MIN_CONTRAST = 0.4
"""Least Euclidean distance of the object's colour from the background's mean, RGB in 0..1."""
GRAIN_DEVIATION = 0.02
"""Standard deviation of the object's own, equally blurred noise, in 0..1: paint, not a constant."""
SUPERSAMPLING = 4
"""Sub-pixels per pixel and axis when an outline is drawn: 16 levels of coverage make smooth edges."""
CURVE_POINTS = 120
"""Vertices of a curved outline: at 480 pixels the polygon stays within a tenth of a pixel of the curve."""


class Shapes(NamedTuple):
    """Pictures with their classes and the exact pixels of their objects.

    Attributes:
        images: the pictures, (N, H, W, 3) uint8 RGB.
        labels: the classes, (N,) int64 indices into :data:`LABELS`.
        object_masks: the objects, (N, H, W) bool, true wherever the object covers any part of the pixel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    object_masks: NDArray[np.bool_]


def draw(seed: int | np.random.Generator, n: int, size: int | tuple[int, int] = SIZE) -> Shapes:
    """Draws ``n`` pictures, the classes balanced to within one and in random order.

    Args:
        seed: the seed, the same for the same pictures; or a generator, which is advanced.
        n: the number of pictures.
        size: the side in pixels, or (height, width).

    Returns:
        Pictures, classes and exact object masks.
    """
    rng = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int) else size
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(LABELS))
    images = np.empty((n, height, width, 3), np.uint8)
    object_masks = np.empty((n, height, width), np.bool_)
    for index, label in enumerate(labels):
        images[index], object_masks[index] = draw_one(rng, int(label), height, width)
    return Shapes(images, labels, object_masks)


def draw_one(
    rng: np.random.Generator, label: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws one picture: the background, then the object's paint over it in proportion to its coverage.

    Returns:
        The picture (H, W, 3) uint8 and the object (H, W) bool.
    """
    blur = rng.uniform(*BLUR_RANGE)
    base = 0.5 + rng.uniform(-BASE_SHIFT, BASE_SHIFT, 3)
    background = base + rng.uniform(*BACKGROUND_DEVIATION) * draw_blurred_noise(rng, height, width, blur)
    paint = draw_colour(rng, base) + GRAIN_DEVIATION * draw_blurred_noise(rng, height, width, blur)
    coverage = draw_object(rng, label, height, width)
    blended = background + coverage[:, :, None] * (paint - background)
    return np.round(255 * blended.clip(0, 1)).astype(np.uint8), coverage > 0


def draw_blurred_noise(rng: np.random.Generator, height: int, width: int, blur: float) -> NDArray[np.float64]:
    """Draws white noise behind a Gaussian blur, (H, W, 3), mean 0 and standard deviation 1 in every channel.

    Args:
        rng: the random generator, which is advanced.
        height: the height in pixels.
        width: the width in pixels.
        blur: the sigma of the blur as a share of the shorter side. The blur wraps around at the borders (it is a
            product of spectra).
    """
    sigma = blur * min(height, width)
    squared_frequency = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2
    spectrum = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    spectrum *= np.exp(-2 * (np.pi * sigma) ** 2 * squared_frequency)[:, :, None]
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return noise / noise.std(axis=(0, 1))


def draw_colour(rng: np.random.Generator, base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draws a colour uniformly from all that differ visibly from ``base``; both (3,), RGB in 0..1."""
    while True:
        colour = rng.uniform(0, 1, 3)
        if np.linalg.norm(colour - base) >= MIN_CONTRAST:
            return colour


def draw_object(rng: np.random.Generator, label: int, height: int, width: int) -> NDArray[np.float64]:
    """Draws an object of a class: the share of every pixel that the object covers, (H, W) in 0..1.

    The margin to the border is the one that the furthest-reaching class needs, so that the position tells no class.
    """
    scale = np.sqrt(rng.uniform(*AREA_RANGE)) * min(height, width)
    margin = FURTHEST_REACH * scale + 1
    centre = rng.uniform((margin, margin), (width - margin, height - margin))
    return draw_outline(label, float(scale), centre, rng.uniform(0, 2 * np.pi), height, width)


def draw_outline(
    label: int, scale: float, centre: NDArray[np.float64], angle: float, height: int, width: int
) -> NDArray[np.float64]:
    """Draws an object of a class where it is wanted: the share of every pixel that it covers, (H, W) in 0..1.

    Args:
        label: the class, an index into :data:`LABELS`.
        scale: the side in pixels of a square of the object's area.
        centre: the object's centre of gravity (x, y) in pixels.
        angle: how far it is turned, in radians.
        height: the height of the picture in pixels.
        width: the width of the picture in pixels.
    """
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    vertices = (OUTLINES[label] @ rotation * scale + centre) * SUPERSAMPLING
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in vertices], fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float64) / 255


def outline_circle() -> NDArray[np.float64]:
    """Returns the vertices (V, 2) of a circle."""
    return points_at(np.linspace(0, 2 * np.pi, CURVE_POINTS, endpoint=False))


def outline_square() -> NDArray[np.float64]:
    """Returns the vertices (4, 2) of a square."""
    return points_at(np.arange(4) * np.pi / 2)


def outline_triangle() -> NDArray[np.float64]:
    """Returns the vertices (3, 2) of an equilateral triangle."""
    return points_at(np.arange(3) * 2 * np.pi / 3)


def outline_star() -> NDArray[np.float64]:
    """Returns the vertices (10, 2) of a star with five points."""
    return points_at(np.arange(10) * np.pi / 5) * np.tile([1, 0.42], 5)[:, None]


def outline_cross() -> NDArray[np.float64]:
    """Returns the vertices (12, 2) of a cross whose arms are a third of its length wide."""
    corner = np.array([[3, -1], [3, 1], [1, 1]], np.float64)
    quarter_turn = np.array([[0, 1], [-1, 0]], np.float64)
    return np.concatenate([corner @ np.linalg.matrix_power(quarter_turn, turns) for turns in range(4)])


def outline_heart() -> NDArray[np.float64]:
    """Returns the vertices (V, 2) of a heart."""
    t = np.linspace(0, 2 * np.pi, CURVE_POINTS, endpoint=False)
    height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -height], axis=1)


def outline_crescent() -> NDArray[np.float64]:
    """Returns the vertices (V, 2) of a unit circle out of which another, smaller and off its centre, is cut."""
    radius, offset = 0.8, 0.5
    meeting_x = (1 - radius**2 + offset**2) / (2 * offset)  # both circles pass through (meeting_x, ±meeting_y)
    meeting_y = np.sqrt(1 - meeting_x**2)
    outer_end = np.arctan2(meeting_y, meeting_x)
    inner_end = np.arctan2(meeting_y, meeting_x - offset)
    outer = points_at(np.linspace(outer_end, 2 * np.pi - outer_end, CURVE_POINTS // 2))
    inner = points_at(np.linspace(2 * np.pi - inner_end, inner_end, CURVE_POINTS // 2)) * radius + [offset, 0]
    return np.concatenate([outer, inner[1:-1]])


def outline_arrow() -> NDArray[np.float64]:
    """Returns the vertices (7, 2) of an arrow."""
    half = np.array([[-5, -1.6], [0.5, -1.6], [0.5, -4.2]], np.float64)
    return np.concatenate([half, [[5, 0]], half[::-1] * [1, -1]])


def points_at(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the points (V, 2) of the unit circle at the angles, in radians."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def normalise_outline(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves a polygon's centre of gravity to the origin and scales it to an area of 1 (the shoelace formulas)."""
    following = np.roll(vertices, -1, axis=0)
    cross = vertices[:, 0] * following[:, 1] - following[:, 0] * vertices[:, 1]
    area = cross.sum() / 2
    centre = ((vertices + following) * cross[:, None]).sum(axis=0) / (6 * area)
    return (vertices - centre) / np.sqrt(abs(area))


OUTLINES = tuple(
    normalise_outline(outline())
    for outline in (
        outline_circle,
        outline_square,
        outline_triangle,
        outline_star,
        outline_cross,
        outline_heart,
        outline_crescent,
        outline_arrow,
    )
)
"""One polygon (V, 2) per class of :data:`LABELS`, of area 1 around the origin."""
FURTHEST_REACH = max(float(np.linalg.norm(outline, axis=1).max()) for outline in OUTLINES)
"""Greatest distance of a vertex from the origin, over all classes."""
