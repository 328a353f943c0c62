"""Photographs from image files of any format, as 8-bit RGB the right way up."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from masktool.errors import MasktoolError
from masktool.runtime.depth import WIDE_MODES, find_depth, scale_colour, scale_grey
from masktool.runtime.pictures import open_encoded, open_picture

WHITE = (255, 255, 255, 255)
NOTES = "masktool-notes"
"""Key of a Pillow image's ``info`` with notes on how the image was read, one sentence each."""


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first frame of an image file.

    Rotated as its EXIF entry says; transparency laid over white; grey of more than 8 bits scaled to 8, by the depth
    that the file tells; colour profiles are not applied.

    Args:
        path: path of the file; ``-`` for standard input.

    Returns:
        The image in mode RGB; :func:`notes_of` returns what was assumed of it.

    Raises:
        MasktoolError: the file is missing, empty, truncated, damaged, of too many pixels, or not an image.
    """
    path = Path(path)
    with open_picture(path) as image:
        return to_rgb(image, path)


def read_encoded(content: bytes, where: object) -> Image.Image:
    """Reads an image as :func:`read_image` does, from the bytes of its file.

    Args:
        content: bytes of an image file.
        where: word for what the bytes are, for errors.

    Raises:
        MasktoolError: the bytes are no image, are damaged, or hold too many pixels.
    """
    with open_encoded(io.BytesIO(content), where) as image:
        return to_rgb(image, where)


def notes_of(image: Image.Image) -> tuple[str, ...]:
    """Returns the notes on how an image was read, one sentence each."""
    notes: tuple[str, ...] = image.info.get(NOTES, ())
    return notes


def to_rgb(image: Image.Image, where: object = None) -> Image.Image:
    """Returns an image of any of Pillow's modes in mode RGB, the right way up.

    Raises:
        MasktoolError: the image has grey values that are not 8 to 16 bits wide.
    """
    depth = find_depth(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise MasktoolError(
            "unsupported pixel type",
            where=where,
            expected="8 or 16 bits",
            got="floating point",
            fix="scale it to 0..255 and save it as PNG, or give the model's input as a .npy file",
        )
    notes: tuple[str, ...]
    if upright.mode in WIDE_MODES:
        grey, notes = scale_grey(np.asarray(upright), depth, where)
        rgb = grey.convert("RGB")
    else:
        upright, notes = scale_colour(upright, depth)
        rgb = blend_over_white(upright) if upright.has_transparency_data else upright.convert("RGB")
    if notes:
        rgb.info[NOTES] = notes
    return rgb


def blend_over_white(image: Image.Image) -> Image.Image:
    """Returns a transparent image laid over white, in mode RGB."""
    opaque = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", opaque.size, WHITE), opaque).convert("RGB")
