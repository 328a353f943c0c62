"""Sizes of images from their headers, no pixel decoded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import ExifTags

from masktool.data_files import open_data
from masktool.errors import MasktoolError
from masktool.runtime.arrays import ARRAY_SUFFIX, check_header
from masktool.runtime.pictures import LOSSY_FORMATS, open_picture

TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""


@dataclasses.dataclass(frozen=True)
class Header:
    """The size of an image, and whether its pixels are exact, as its file's header says.

    Attributes:
        stored: (width, height) in pixels as they stand in the file.
        upright: (width, height) in pixels the right way up, as photographs are read.
        exact: whether pixel values come back as they were written.
    """

    stored: tuple[int, int]
    upright: tuple[int, int]
    exact: bool = True


def read_image_header(path: Path) -> Header | None:
    """Returns an image's header; None where no header can be read, or where an array's axes do not tell its sides."""
    try:
        if path.suffix.lower() == ARRAY_SUFFIX:
            return read_array_header(path)
        with open_picture(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            stored = image.size
            return Header(stored, stored[::-1] if turned else stored, image.format not in LOSSY_FORMATS)
    except MasktoolError:  # whatever is wrong is reported when the image itself is read
        return None


def read_array_header(path: Path) -> Header | None:
    """Returns the header of a ``.npy`` file: of a map (H, W), or of a photograph (H, W, 3) uint8."""
    with open_data(path, "a .npy file") as stream:
        array = check_header(stream, path)
    rank = len(array.shape)
    if rank == 2 or (rank == 3 and array.shape[2] == 3 and array.dtype == np.uint8):
        size = (array.shape[1], array.shape[0])
        return Header(size, size)
    return None
