"""Pictures of every kind that is read."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np

from fuzz.children import Bounds
from fuzz.mutations import mutate_bytes
from fuzz.targets.target import TARGETS, Target

SIDE = 24


@functools.cache
def parents() -> list[tuple[bytes, str]]:
    """Returns small pictures in many formats and modes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16))
    kinds = [(colours, each) for each in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "ICO", "TGA")]
    kinds += [(colours.convert(mode), "PNG") for mode in ("L", "LA", "P", "RGBA", "1")]
    kinds += [(colours.convert("CMYK"), "JPEG"), (colours.convert("CMYK"), "TIFF"), (wide, "PNG"), (wide, "TIFF")]
    found = []
    for picture, kind in kinds:
        stream = io.BytesIO()
        picture.save(stream, kind)
        found.append((stream.getvalue(), f".{kind.lower()}"))
    return found


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Breaks the bytes of one of them."""
    content, suffix = parents()[int(rng.integers(len(parents())))]
    return mutate_bytes(content, rng), suffix


def run(path: Path, option: int) -> str:
    """Reads it, as a photograph or as a label map; a picture that is read is RGB."""
    if option % 2:
        from masktool.explainers.segmentation import read_label_map

        read_label_map(path)
        return ""
    from masktool.runtime.images import read_image

    mode = read_image(path).mode
    return "" if mode == "RGB" else f"mode {mode}"


TARGETS["pictures"] = Target(draw, run, Bounds(seconds=15, megabytes=2500))
