"""Photographs to prepare: drawn ones of many sizes, and real ones."""

import numpy as np
from PIL import Image

from masktool.runtime.images import read_image

SIZES = ((40, 31), (31, 40), (12, 10), (9, 8), (90, 17), (17, 90), (11, 30), (1, 5), (64, 64), (25, 27))
"""(width, height) of drawn photographs: lying and standing, larger and smaller than the input, thin, of its size."""
REAL = 4


def draw(size, seed=0):
    """Returns a photograph of (width, height): noise, in which every difference of a filter shows."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def read(data_dir):
    """Returns real photographs, lying and standing ones."""
    paths = sorted((data_dir / "images").glob("*.jpg"))
    return [read_image(path) for path in paths[:: len(paths) // REAL][:REAL]]
