"""Pictures of several objects, each with its exact pixels, and pairs of pictures that differ in one part alone.

Objects are those of the built-in network's pictures (:mod:`masktool.demo.shapes`): outlines in a random colour on
blurred noise, of random area, position and rotation. A *scene* holds two or three that do not touch. A *figure* is a
body with a top on it; every top comes with every body, so that classes share parts, and whoever knows the body knows
nothing of the top. Parts of plain figures are told by their outlines, in colours by chance, those of coloured figures
by their colours, in outlines by chance. A *pair* is one figure twice, but for its top's outline or colour.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.demo import shapes

SIZE = 96
"""Height and width of the pictures in pixels."""
OBJECTS = ("circle", "triangle", "star", "cross", "heart")
"""The classes of a scene's objects."""
FEWEST_OBJECTS, MOST_OBJECTS = 2, 3
OBJECT_AREA = (0.025, 0.05)
"""Share of the picture that an object of a scene covers: 15 to 21 pixels square."""
CLEARANCE = 4
"""Pixels between the boxes of two objects of a scene."""
BODIES = ("square", "circle", "heart")
TOPS = ("cross", "star", "triangle")
FIGURES = tuple(f"{top} on {body}" for body in BODIES for top in TOPS)
"""The classes of figures, all tops of the first body first."""
BODY_COLOURS = {"red": (0.85, 0.15, 0.15), "green": (0.15, 0.7, 0.15), "blue": (0.15, 0.15, 0.85)}
TOP_COLOURS = {"yellow": (0.85, 0.85, 0.15), "cyan": (0.15, 0.85, 0.85), "magenta": (0.85, 0.15, 0.85)}
COLOUR_SPREAD = 0.12
"""How far each channel of a part's colour may lie from its class's."""
COLOURED_FIGURES = tuple(f"{top} on {body}" for body in BODY_COLOURS for top in TOP_COLOURS)
"""The classes of coloured figures, in the same order."""
PART_AREA = (0.07, 0.09)
"""Share of the picture that either part of a figure covers: 25 to 29 pixels square."""
PART_REACH = 0.9
"""Greatest distance of a part's outline from its centre, in sides of a square as large: the star's."""
PLAIN = (0.02, 0.04)
"""Standard deviation of the noise behind figures, in 0..1, a third of that behind scenes: what background does is not
asked of pairs."""
APART = 0.55
"""Distance of the centres of a figure's parts, as a share of the sum of the sides of squares as large: they touch."""
TILT = np.pi / 10
"""Largest angle by which a figure stands askew."""

Picture = NDArray[np.uint8]
Pixels = NDArray[np.bool_]


class Scene(NamedTuple):
    """A picture and the objects in it.

    Attributes:
        image: the picture, (H, W, 3) uint8 RGB.
        labels: the class of each object, indices into :data:`OBJECTS`.
        masks: the pixels of each object, (n, H, W) bool, true wherever the object covers any part of the pixel.
    """

    image: Picture
    labels: tuple[int, ...]
    masks: Pixels


class Figure(NamedTuple):
    """A picture of a body with a top on it.

    Attributes:
        image: the picture, (H, W, 3) uint8 RGB.
        label: the class, an index into :data:`FIGURES` or :data:`COLOURED_FIGURES`, also where a part is left out.
        body: the pixels of the body that the top does not hide, (H, W) bool.
        top: the pixels of the top, (H, W) bool.
    """

    image: Picture
    label: int
    body: Pixels
    top: Pixels


def draw_scene(rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Draws two or three objects of random classes, no two of whose boxes come nearer than :data:`CLEARANCE`."""
    labels = rng.integers(len(OBJECTS), size=rng.integers(FEWEST_OBJECTS, MOST_OBJECTS, endpoint=True))
    covers: list[NDArray[np.float64]] = []
    while len(covers) < len(labels):
        found = draw_anywhere(rng, OBJECTS[labels[len(covers)]], size)
        if not any(near(found > 0, other > 0) for other in covers):
            covers.append(found)
    return Scene(paint(rng, covers), tuple(labels.tolist()), np.stack(covers) > 0)


def draw_anywhere(rng: np.random.Generator, name: str, size: int) -> NDArray[np.float64]:
    """Draws an object of a scene: how much of each pixel it covers. The margin is the same for all classes."""
    side = float(np.sqrt(rng.uniform(*OBJECT_AREA))) * size
    margin = shapes.FURTHEST_REACH * side + 1
    centre = rng.uniform(margin, size - margin, 2)
    return shapes.draw_outline(shapes.LABELS.index(name), side, centre, rng.uniform(0, 2 * np.pi), size, size)


def near(one: Pixels, other: Pixels) -> bool:
    """Tells whether the boxes of two objects are nearer than :data:`CLEARANCE`."""
    gaps = []
    for axis in (0, 1):
        (first, last), (start, end) = (np.flatnonzero(each.any(axis=axis))[[0, -1]] for each in (one, other))
        gaps.append(max(start - last, first - end))
    return max(gaps) <= CLEARANCE


def draw_figure(
    rng: np.random.Generator, label: int, coloured: bool = False, shown: tuple[bool, bool] = (True, True)
) -> Figure:
    """Draws a figure; two generators in one state give the same picture but for the parts' outlines or colours."""
    size = SIZE
    body, top = divmod(label, len(TOPS))
    sides = np.sqrt(rng.uniform(*PART_AREA, 2)) * size
    askew = rng.uniform(-TILT, TILT)
    step = APART * sides.sum() * np.array([np.sin(askew), np.cos(askew)])
    reach = PART_REACH * sides.max() + np.abs(step) / 2 + 1
    centre = rng.uniform(reach, size - reach)
    turns = rng.uniform(0, 2 * np.pi, 2)
    names = tuple(rng.choice(OBJECTS, 2)) if coloured else (BODIES[body], TOPS[top])
    colours = [list(BODY_COLOURS.values())[body], list(TOP_COLOURS.values())[top]] if coloured else None
    covers = [
        shapes.draw_outline(shapes.LABELS.index(name), side, place, turn, size, size)
        for name, side, place, turn in zip(names, sides, (centre + step / 2, centre - step / 2), turns, strict=True)
    ]
    covers = [cover * is_shown for cover, is_shown in zip(covers, shown, strict=True)]
    image = paint(rng, covers, PLAIN, colours)
    return Figure(image, label, (covers[0] > 0) & ~(covers[1] > 0), covers[1] > 0)


def draw_pair(rng: np.random.Generator, label: int, other: int, coloured: bool = False) -> tuple[Figure, Figure]:
    """Draws one figure twice, as two classes: where these share the body, the pictures differ in the top alone."""
    twin = copy.deepcopy(rng)
    return draw_figure(rng, label, coloured), draw_figure(twin, other, coloured)


def paint(
    rng: np.random.Generator,
    covers: list[NDArray[np.float64]],
    deviation: tuple[float, float] = shapes.BACKGROUND_DEVIATION,
    colours: Sequence[tuple[float, float, float]] | None = None,
) -> Picture:
    """Returns a picture of objects on noise, each in a colour of its own, the later above the earlier.

    Args:
        rng: the random generator, which is advanced.
        covers: how much of each pixel each object covers, (H, W) in 0..1.
        deviation: the range of the noise's standard deviation.
        colours: about which colour each object has; None draws any that differs from the background.
    """
    height, width = covers[0].shape
    blur = rng.uniform(*shapes.BLUR_RANGE)
    base = 0.5 + rng.uniform(-shapes.BASE_SHIFT, shapes.BASE_SHIFT, 3)
    noise = shapes.draw_blurred_noise(rng, height, width, blur)
    blended = base + rng.uniform(*deviation) * noise
    grain = shapes.GRAIN_DEVIATION * shapes.draw_blurred_noise(rng, height, width, blur)
    for index, cover in enumerate(covers):
        if colours is None:
            colour = shapes.draw_colour(rng, base)
        else:
            colour = colours[index] + rng.uniform(-COLOUR_SPREAD, COLOUR_SPREAD, 3)
        blended += cover[:, :, None] * (colour + grain - blended)
    return np.round(255 * blended.clip(0, 1)).astype(np.uint8)


def draw_scenes(seed: int, count: int) -> list[Scene]:
    """Draws scenes; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    return [draw_scene(rng) for _ in range(count)]


def draw_figures(seed: int, count: int, coloured: bool = False, incomplete: float = 0.0) -> list[Figure]:
    """Draws figures, the classes balanced to within one and in random order; the same seed gives the same ones.

    Args:
        seed: the seed.
        count: the number of figures.
        coloured: whether colours tell the parts.
        incomplete: the share of figures either part of which is left out by chance.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(FIGURES))
    figures = []
    for label in labels:
        shown = (True, True) if rng.random() >= incomplete else (bool(rng.integers(2)), bool(rng.integers(2)))
        figures.append(draw_figure(rng, int(label), coloured, shown))
    return figures


def share_label(figure: Figure) -> NDArray[np.float32]:
    """Returns the probability of each class that what a figure shows leaves open: 1 in all."""
    body, top = divmod(figure.label, len(TOPS))
    found = np.zeros((len(BODIES), len(TOPS)), np.float32)
    found[body if figure.body.any() else slice(None), top if figure.top.any() else slice(None)] = 1
    return (found / found.sum()).reshape(-1)
