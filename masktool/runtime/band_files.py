"""Many bands from a TIFF file, as satellites, microscopes and hyperspectral cameras give them: numbers, no photograph.

Pillow reads up to four samples of a pixel, as colours. tifffile, which scikit-image brings, reads any number, of any
type, whether they lie pixel by pixel or one plane after the other. Photographs stay Pillow's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from masktool.data_files import open_data
from masktool.errors import MasktoolError, describe_exception
from masktool.limits import check_limit
from masktool.runtime.arrays import NUMBERS
from masktool.runtime.unwarned import unwarned

if TYPE_CHECKING:
    from tifffile import TiffPage

TIFF_SUFFIXES = (".tif", ".tiff")
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins, in either order of bytes; the last two are BigTIFF's."""
PHOTOMETRIC_GREY = (0, 1)
"""TIFF's photometric interpretations of samples that are no colours: white or black is zero."""
COLOUR_SAMPLES = (1, 3, 4)
"""Samples of a pixel that a photograph has: grey; red, green, blue; and with them transparency, or four inks."""
MISSING_CODEC = "imagecodecs"


def read_bands(path: Path) -> NDArray[Any] | None:
    """Returns the bands in a TIFF file, (C, H, W), of the type that they are stored in; None for a photograph.

    Bands are what has two or more than four samples in a pixel, or several that the file calls grey. Only the first
    image of a file is read.

    Raises:
        MasktoolError: the file is damaged, holds no numbers or more than the limit, or is compressed in a way that
            needs a package.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    with open_data(path, "an image") as stream:
        if stream.read(4) not in TIFF_MARKS:
            return None  # whatever it is, Pillow says so
        stream.seek(0)
        return read_first_page(stream, path)


def read_first_page(stream: BinaryIO, path: Path) -> NDArray[Any] | None:
    """Returns the bands in the first image of a TIFF; what tifffile raises over a damaged one is a MasktoolError."""
    import tifffile  # some tenths of a second, which only TIFFs pay for

    try:
        with unwarned(), tifffile.TiffFile(stream, name=path.name) as file:
            page = file.pages.first
            if not holds_bands(page):
                return None
            check_limit("pixels", math.prod(page.shape), where=path)
            return bands_first(page, path)
    except MasktoolError:
        raise
    except Exception as error:  # TiffFileError, ValueError, struct.error, zlib.error, KeyError of an unknown codec, ...
        reason = describe_exception(error)
        if MISSING_CODEC in reason:
            raise MasktoolError(
                "a TIFF of bands that are compressed in a way which needs a package",
                where=path,
                got=reason,
                fix=f"pip install {MISSING_CODEC}, or save it uncompressed or with deflate",
            ) from error
        raise MasktoolError("a damaged TIFF, or one of a kind that is not read", where=path, got=reason) from error


def holds_bands(page: TiffPage) -> bool:
    """Tells whether an image in a TIFF has bands, and no colours."""
    count = int(page.samplesperpixel)
    return count not in COLOUR_SAMPLES or (count > 1 and int(page.photometric) in PHOTOMETRIC_GREY)


def bands_first(page: TiffPage, path: Path) -> NDArray[Any]:
    """Returns the numbers of an image in a TIFF, (C, H, W)."""
    values = page.asarray()
    if values is None or values.ndim != 3 or values.dtype.kind not in NUMBERS:
        got = "nothing" if values is None else f"{values.shape} {values.dtype}"
        raise MasktoolError("a TIFF without one number for each band and pixel", where=path, got=got)
    return values if page.axes.startswith("S") else np.moveaxis(values, -1, 0)
