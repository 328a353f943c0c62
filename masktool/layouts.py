"""Where the axes of a network's input lie: of signals (N, C, L), images (N, C, H, W) and volumes (N, C, D, H, W).

The channels stand first or last. How many axes of places there are follows from the layout, and so does the rank of the
mask, which has them all: (M, 1, L), (M, 1, H, W), (M, 1, D, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from masktool.contract import DEFAULT_SIZE, Layout, Size
from masktool.errors import MasktoolError

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
CHANNEL_AXIS: Mapping[Layout, int] = {layout: layout.index("C") for layout in LAYOUTS}
SPATIAL_AXES: Mapping[Layout, tuple[int, ...]] = {
    layout: tuple(axis for axis, letter in enumerate(layout) if letter not in "NC") for layout in LAYOUTS
}
"""Indices of the axes of places, by layout: of height and width, of a length, or of depth, height and width."""
FROM_CHANNELS_FIRST: Mapping[Layout, tuple[int, ...]] = {
    layout: tuple(
        0 if letter == "N" else 1 if letter == "C" else 2 + SPATIAL_AXES[layout].index(axis)
        for axis, letter in enumerate(layout)
    )
    for layout in LAYOUTS
}
"""The permutation that brings (N, C, ...) into a layout."""
TO_CHANNELS_FIRST: Mapping[Layout, tuple[int, ...]] = {
    layout: (0, CHANNEL_AXIS[layout], *SPATIAL_AXES[layout]) for layout in LAYOUTS
}
"""The permutation that brings a layout into (N, C, ...)."""
RANKS = tuple(sorted({len(layout) for layout in LAYOUTS}))
"""The ranks that a network's image input may have."""
USUAL_SIZES: Mapping[int, Size] = {1: (1024,), 2: DEFAULT_SIZE, 3: (16, 112, 112)}
"""Lengths where neither network nor preprocessing tells, by the number of axes of places: of images what most networks
were trained on, of volumes what most networks of videos were."""
IN_WORDS: Mapping[int, str] = {1: "length", 2: "height and width", 3: "depth, height and width"}
"""The axes of places in words, by their number."""


def is_channels_first(layout: Layout) -> bool:
    """Tells whether the channels stand in front of the places."""
    return CHANNEL_AXIS[layout] == 1


def layouts_of_rank(rank: int) -> tuple[Layout, Layout]:
    """Returns the layouts of a rank: with the channels first, and with the channels last."""
    first, last = (layout for layout in LAYOUTS if len(layout) == rank)
    return first, last


def refuse_unless_images(layout: Layout, what: str, fix: str) -> None:
    """Raises MasktoolError where an input is no image; ``what`` is for images alone, and ``fix`` says what is not."""
    if len(SPATIAL_AXES[layout]) != len(DEFAULT_SIZE):
        got = f"an input ({', '.join(layout)})"
        raise MasktoolError(f"{what} is for images", expected="an input (N, C, H, W)", got=got, fix=fix)


def image_size(size: Size, what: str) -> tuple[int, int]:
    """Returns (height, width) of an input; MasktoolError where it is no image, and ``what`` is for these alone."""
    if len(size) != len(DEFAULT_SIZE):
        raise MasktoolError(f"{what} is for images", expected="an input (N, C, H, W)", got=f"one of {show_size(size)}")
    return size[0], size[1]


def show_size(size: Sequence[object]) -> str:
    """Returns lengths as messages show them: ``224 x 224``."""
    return " x ".join(map(str, size))
