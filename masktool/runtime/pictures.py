"""Image files: which formats are opened, how large they may be, and what is wrong with the others."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from masktool.data_files import open_data
from masktool.errors import MasktoolError, describe_exception
from masktool.limits import check_limit, limit
from masktool.runtime.unwarned import unwarned

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Pillow's names of the formats that are opened. It knows some thirty more, whose readers hardly anybody tries: that of
EPS starts Ghostscript."""
PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Tiff", "Bmp", "Gif", "Ppm", "Jpeg2K", "Avif")
"""Pillow's modules that read the formats in :data:`FORMATS`."""
SAVED_FORMATS = ("MPO",)
"""Pillow's names for files of several photographs, which it opens as JPEG."""
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
LOSSY_FORMATS = frozenset({"JPEG", "MPO", "AVIF", "HEIF"})
"""Formats whose pixel values do not come back as they were written."""
EXPECTED = "a photograph: JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF or HEIC"
PNG_KEY = "masktool"
"""Text entry of a PNG that says how an explanation was made; it also tells masktool's own images from photographs."""
HEAD_BYTES = 64
"""Bytes at a file's start that are enough to tell its kind."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
BRAND = slice(8, 12)
"""Bytes in which a file of ISO's base media format, which starts with a length and ``ftyp``, names its kind."""
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHERS = {
    b"%!PS": "PostScript",
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML, perhaps an SVG drawing",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"8BPS": "a Photoshop document",
    b"PK\x03\x04": "an archive",
    b"\x93NUMPY": "a numpy array, whose name should end in .npy",
}
"""Kinds of other files, by the bytes that they start with, regardless of case."""
RAW_PHOTOMETRIC = (32803, 34892)
"""PhotometricInterpretation of a digital negative: samples of a colour filter, or linear ones."""
IN_PLANES, UNCOMPRESSED = 2, 1
"""Values of the TIFF tags PlanarConfiguration and Compression."""
BYTE_BITS = 8
READ_BITS, READ_SAMPLES = (8, 16), (1, 3, 4)
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point"}
OPENING = threading.Lock()
"""Held while an image is opened, since Pillow's own limit is one number for the whole process."""


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Returns those of the allowed formats that this Pillow opens, HEIC where pillow-heif is installed."""
    for plugin in PLUGINS:
        with contextlib.suppress(ImportError):  # of a Pillow that does not have it
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def picture_extensions() -> frozenset[str]:
    """Returns the lower-case extensions of the formats that are opened, such as ``.jpg``; always those of HEIC too."""
    known_formats()  # registers their extensions
    known = {suffix for suffix, name in Image.EXTENSION.items() if name in (*FORMATS, *SAVED_FORMATS)}
    return frozenset({*known, *HEIF_SUFFIXES})


@contextlib.contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Yields an image, its header read, its pixels not; whatever a decoder raises in the block becomes a MasktoolError.

    Raises:
        MasktoolError: the file is missing, empty, no image or one of another format, of more pixels than the limit,
            truncated or damaged.
    """
    with open_data(path, "an image") as stream, open_encoded(stream, path) as image:
        yield image


@contextlib.contextmanager
def open_encoded(stream: BinaryIO, where: object) -> Iterator[Image.Image]:
    """Yields an image as :func:`open_picture` does, from a stream that can be searched back and forth.

    Args:
        stream: stream of an image file's bytes.
        where: file or request that the stream is of, for errors.

    Raises:
        MasktoolError: the bytes are no image or one of another format, of more pixels than the limit, or damaged.
    """
    with unwarned():  # of what the decoder copes with: many pixels, a damaged EXIF entry
        try:
            with open_stream(stream) as image:
                check_limit("pixels", image.width * image.height, where=where)
                refuse_misread(image, where)
                yield image
        except MasktoolError:
            raise
        except UnidentifiedImageError as error:
            raise explain_unidentified(stream, where) from error
        except MemoryError as error:
            raise MasktoolError("not enough memory for the image", where=where) from error
        except Image.DecompressionBombError as error:
            raise MasktoolError("too many pixels", where=where, got=error, fix="scale the image down first") from error
        except Exception as error:  # a decoder may raise anything on damaged bytes: SyntaxError, struct.error, ...
            got = describe_exception(error)
            raise MasktoolError("damaged or truncated image", where=where, got=got) from error


def open_stream(stream: BinaryIO) -> Image.Image:
    """Returns the image in a stream of one of the allowed formats; masktool's limit on pixels replaces Pillow's."""
    with OPENING:
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if usual is None else max(usual, limit("pixels"))
        try:
            return Image.open(stream, formats=known_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def explain_unidentified(stream: BinaryIO, where: object) -> MasktoolError:
    """Returns the error for a file that none of the allowed formats' readers takes."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    brand = head[BRAND] if head[4:8] == b"ftyp" else b""
    if brand in HEIF_BRANDS and "HEIF" not in known_formats():
        fix = "pip install 'masktool[heif]', or convert it to JPEG"
        return MasktoolError("a HEIC photograph, which needs pillow-heif", where=where, fix=fix)
    if brand in AVIF_BRANDS:
        return MasktoolError("an AVIF photograph that Pillow cannot read", where=where, fix="convert it to PNG or JPEG")
    if head[:4] in TIFF_MARKS:
        return explain_tiff(stream, where)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((name for mark, name in OTHERS.items() if text.startswith(mark.lower())), None)
    return MasktoolError("not an image", where=where, expected=EXPECTED, got=found)


def refuse_misread(image: Image.Image, where: object) -> None:
    """Raises MasktoolError for a TIFF that Pillow opens but reads with wrong pixel values."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return
    bits, kinds = max(tags.get(ExifTags.Base.BitsPerSample, (1,))), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    planes = tags.get(ExifTags.Base.PlanarConfiguration, 1) == IN_PLANES and len(image.getbands()) > 1
    if planes and bits > BYTE_BITS and tags.get(ExifTags.Base.Compression, UNCOMPRESSED) == UNCOMPRESSED:
        raise MasktoolError(
            "a TIFF of another kind",
            where=where,
            expected=f"samples of {bits} bits pixel by pixel",
            got="uncompressed planes, one for each channel, which Pillow misreads",
            fix="save it with interleaved samples (PlanarConfiguration 1), or compressed",
        )
    if SAMPLE_FORMATS.get(kinds[0]) == "signed" and bits <= BYTE_BITS:
        raise MasktoolError(
            "a TIFF of another kind",
            where=where,
            expected="unsigned samples",
            got=f"signed ones of {bits} bits",
            fix="shift them to 0..255 and save them as unsigned",
        )


def explain_tiff(stream: BinaryIO, where: object) -> MasktoolError:
    """Returns the error for a TIFF of samples that Pillow does not read; it describes them where the file does."""
    try:
        stream.seek(0)
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
        bits = directory.get(ExifTags.Base.BitsPerSample, (1,))
        kind = SAMPLE_FORMATS.get(directory.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "unusual")
        samples = directory.get(ExifTags.Base.SamplesPerPixel, 1)
        photometric = directory.get(ExifTags.Base.PhotometricInterpretation)
    except Exception:  # a damaged directory: what is known is that it is a TIFF
        fix = "save it with 8 or 16 bits per sample"
        return MasktoolError("a TIFF that cannot be read", where=where, fix=fix)
    if photometric in RAW_PHOTOMETRIC:
        fix = "develop it first, to JPEG, PNG or TIFF"
        return MasktoolError("a camera's raw image, not a photograph yet", where=where, fix=fix)
    got = f"{samples} sample{'s' if samples != 1 else ''} of {bits[0]} bits ({kind}) per pixel"
    if kind != "unsigned":
        expected, fix = "unsigned samples", "scale them to 0..255 and save it as PNG"
    elif bits[0] in READ_BITS and samples not in READ_SAMPLES:
        expected, fix = "1, 3 or 4 samples per pixel", "save it as grey or RGB"
    elif bits[0] in READ_BITS and samples != 1:
        expected, fix = "another arrangement of its samples", "save it as PNG"
    else:
        expected, fix = "8 or 16 bits per sample", "save it with 8 or 16 bits per sample"
    return MasktoolError("a TIFF of another kind", where=where, expected=expected, got=got, fix=fix)
