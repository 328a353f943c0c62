"""How many bits an image's values have, as its file says, and the scaling of more than 8 bits to 8.

A file of 16 bits a sample often holds 10, 12 or 14, as cameras and scanners measure: then it says so, or nothing does.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.errors import MasktoolError

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with more than 8 bits."""
USUAL_BITS, FILE_BITS = 8, 16
WIDE_MAXIMUM = 2**FILE_BITS - 1
DARK_BITS = 14
"""Bits up to which the values of a 16-bit image are doubtful: it is nearly black, or has fewer bits than its file."""
BITS_PER_SAMPLE, PHOTOMETRIC, MAXIMUM_SAMPLE, SAMPLE_FORMAT = 258, 262, 281, 339
"""Tags of TIFF 6.0."""
WHITE_IS_ZERO, SIGNED = 0, 2
"""Values of the tags PhotometricInterpretation and SampleFormat."""
LARGEST_UNSIGNED = 2**32 - 1
PNG_CHUNKS_START, PNG_BITS = 8, 8
"""Byte where a PNG's chunks start, and the byte of its header that holds the bits per sample."""
PNG_CHUNKS = 64
"""Most chunks of a PNG to look at for the one that tells the depth, which must stand in front of the pixels."""


class Depth(NamedTuple):
    """What an image file says of its pixel values.

    Attributes:
        bits: number of bits that the file gives to a sample.
        significant: number of those bits that the values use; None where the file does not say.
        right_aligned: True where the values use the lower bits; None where they may use either end.
        inverted: whether 0 is white.
        signed: whether values may be below 0.
    """

    bits: int = USUAL_BITS
    significant: int | None = None
    right_aligned: bool | None = True
    inverted: bool = False
    signed: bool = False


def find_depth(image: Image.Image) -> Depth:
    """Returns the depth of an image from its open file, before the pixels are loaded: after that the file is gone."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        return find_tiff_depth(tags)
    stream = getattr(image, "fp", None)
    if image.format == "PNG" and stream is not None and not stream.closed:
        return find_png_depth(stream)
    if image.format == "PPM" and image.mode in WIDE_MODES:
        return Depth(FILE_BITS, FILE_BITS)  # Pillow has scaled its values by the header's maximum
    return Depth(FILE_BITS) if image.mode in WIDE_MODES else Depth()


def find_tiff_depth(tags: Any) -> Depth:
    """Returns the depth that a TIFF's tags give; the tag of the largest value counts only where it is 2^n - 1."""
    bits = max(tags.get(BITS_PER_SAMPLE, (USUAL_BITS,)))
    largest = max(tags.get(MAXIMUM_SAMPLE, (0,)))
    told = bits if USUAL_BITS < bits < FILE_BITS else largest.bit_length() if largest & (largest + 1) == 0 else 0
    significant = told if USUAL_BITS < told < FILE_BITS else None
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    if signed and significant is None and bits == FILE_BITS:
        significant = FILE_BITS - 1  # below 0 there is no brightness
    return Depth(bits, significant, inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO, signed=signed)


def find_png_depth(stream: BinaryIO) -> Depth:
    """Returns the depth that a PNG's header and its chunk ``sBIT`` give."""
    here = stream.tell()
    try:
        stream.seek(PNG_CHUNKS_START)
        bits, significant = USUAL_BITS, None
        for _ in range(PNG_CHUNKS):
            length, kind = struct.unpack(">I4s", stream.read(8))
            if kind == b"IDAT":
                break
            content = stream.read(length) if kind in (b"IHDR", b"sBIT") else b""
            if kind == b"IHDR":
                bits = content[PNG_BITS]
            elif kind == b"sBIT" and content:
                significant = max(content[:3])
            stream.seek(length - len(content) + 4, 1)
    finally:
        stream.seek(here)
    return Depth(bits, significant if significant is not None and 0 < significant < bits else None, None)


def scale_grey(values: NDArray[Any], depth: Depth, where: object = None) -> tuple[Image.Image, tuple[str, ...]]:
    """Scales grey values of more than 8 bits to 8 (Pillow's own conversion cuts them off at 255).

    Args:
        values: grey values (H, W), integers.
        depth: depth of the values, as the file gives it.
        where: source of the values, for the error; None leaves it out.

    Returns:
        The image in mode L; the assumptions that were made, one sentence each.

    Raises:
        MasktoolError: the values need more than 16 bits.
    """
    values = values.astype(np.int64)
    if depth.bits > FILE_BITS and not depth.signed:
        values &= LARGEST_UNSIGNED  # Pillow hands them out as signed
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > WIDE_MAXIMUM:
        raise MasktoolError(
            "unsupported pixel values", where=where, expected=f"0 to {WIDE_MAXIMUM}", got=f"{low} to {high}"
        )
    maximum = choose_maximum(values, high, depth)
    scaled = np.rint(values * (255 / maximum)).astype(np.uint8)
    return Image.fromarray(255 - scaled if depth.inverted else scaled), describe_grey(high, depth)


def choose_maximum(values: NDArray[np.int64], high: int, depth: Depth) -> int:
    """Returns the grey value that stands for full brightness."""
    if depth.significant is None or high >= 2**depth.significant:
        return WIDE_MAXIMUM
    if depth.right_aligned is None and fills_file(values, depth):
        return WIDE_MAXIMUM
    return 2**depth.significant - 1


def fills_file(values: NDArray[np.int64], depth: Depth) -> bool:
    """Tells whether a PNG's values may be scaled to all bits of the file, as its specification asks.

    Source: W3C, "Portable Network Graphics (PNG) Specification", section 13.12, which names three ways of scaling.
    """
    bits, spare = depth.significant or depth.bits, depth.bits - (depth.significant or depth.bits)
    samples = values >> spare
    shifted = samples << spare
    replicated = shifted | (samples >> max(bits - spare, 0))
    linear = np.rint(samples * ((2**depth.bits - 1) / (2**bits - 1))).astype(np.int64)
    return bool(((values == shifted) | (values == replicated) | (values == linear)).all())


def describe_grey(high: int, depth: Depth) -> tuple[str, ...]:
    """Returns what was assumed of grey values whose depth the file does not tell, where they use few of its bits."""
    bits = high.bit_length()
    if depth.significant is not None or bits > DARK_BITS or high == 0:
        return ()
    fix = f"if they have {bits} bits, multiply them by {2 ** (FILE_BITS - bits)} and save the file again"
    return (f"grey values reach only {high:,} of {WIDE_MAXIMUM:,}: read as {FILE_BITS} bits; {fix}",)


def scale_colour(image: Image.Image, depth: Depth) -> tuple[Image.Image, tuple[str, ...]]:
    """Brings colours of more than 8 bits, of which Pillow keeps the upper 8, to full brightness where the file tells.

    Args:
        image: image of 8-bit samples.
        depth: depth of the samples in the file.

    Returns:
        The image; the assumptions that were made, one sentence each.
    """
    if depth.bits <= USUAL_BITS:
        return image, ()
    high = max(int(band.getextrema()[1]) for band in image.convert("RGB").split())  # type: ignore[arg-type]
    left = (depth.significant or depth.bits) - USUAL_BITS - (depth.bits - FILE_BITS)
    if depth.significant is not None and depth.right_aligned and 0 < left < USUAL_BITS and high < 2**left:
        note = (
            f"colours of {depth.significant} bits in samples of {depth.bits}, of which {left} bits could be read: "
            f"multiply them by {2 ** (depth.bits - depth.significant)} and save the file again to keep all"
        )
        return scale_bands(image, (2**USUAL_BITS - 1) / (2**left - 1)), (note,)
    if high == 0 or high >> (DARK_BITS - USUAL_BITS):
        return image, ()
    told = "they have fewer" if depth.significant is None else f"their {depth.significant} bits are the lower ones"
    return image, (
        f"colour values reach only {high} of 255: read as {depth.bits} bits; if {told}, scale them to "
        f"{depth.bits} bits and save the file again",
    )


def scale_bands(image: Image.Image, factor: float) -> Image.Image:
    """Returns an image with every channel but the alpha one multiplied by a factor."""
    table = [min(round(value * factor), 2**USUAL_BITS - 1) for value in range(2**USUAL_BITS)]
    bands = [
        band if name == "A" else band.point(table) for name, band in zip(image.getbands(), image.split(), strict=True)
    ]
    return Image.merge(image.mode, bands)
