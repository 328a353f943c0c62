"""Photographs from files, whatever their kind, as 8-bit RGB the right way up."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from masktool.errors import MasktoolError
from masktool.runtime.paths import check_readable

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits."""
WIDE_MAXIMUM = 65535
WHITE = (255, 255, 255, 255)


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first frame of an image file.

    Rotated as its EXIF entry says; transparency laid over white; 16-bit grey scaled to 8 bits; colour profiles are
    not applied.

    Returns:
        Mode RGB.

    Raises:
        MasktoolError: missing, empty, truncated, damaged, too many pixels, or not an image.
    """
    path = Path(path)
    check_readable(path, "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the decoder copes with: many pixels, a damaged EXIF entry
            with Image.open(path) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image), path)
    except MasktoolError:
        raise
    except UnidentifiedImageError as error:
        raise MasktoolError(
            "not an image", where=path, expected="JPEG, PNG, WebP, TIFF or another photograph"
        ) from error
    except Image.DecompressionBombError as error:
        raise MasktoolError("too many pixels", where=path, got=error, fix="scale the image down first") from error
    except Exception as error:  # a decoder may raise anything on damaged bytes: OSError, SyntaxError, struct.error, ...
        raise MasktoolError("damaged or truncated image", where=path, got=error) from error


def to_rgb(image: Image.Image, where: object = None) -> Image.Image:
    """Converts any of Pillow's modes to RGB.

    Raises:
        MasktoolError: grey values that are not 8 or 16 bits wide.
    """
    if image.mode in WIDE_MODES:
        return scale_grey(image, where).convert("RGB")
    if image.mode == "F":
        raise MasktoolError("unsupported pixel type", where=where, expected="8 or 16 bits", got="floating point")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, WHITE), opaque).convert("RGB")
    return image.convert("RGB")


def scale_grey(image: Image.Image, where: object = None) -> Image.Image:
    """Scales 16-bit grey values to 8 bits (Pillow's own conversion cuts them off at 255)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > WIDE_MAXIMUM:
        raise MasktoolError(
            "unsupported pixel values",
            where=where,
            expected=f"0 to {WIDE_MAXIMUM}",
            got=f"{values.min()} to {values.max()}",
        )
    return Image.fromarray(np.rint(values * (255 / WIDE_MAXIMUM)).astype(np.uint8))
