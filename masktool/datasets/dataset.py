"""A set of images with their annotations; :mod:`masktool.datasets.reading` reads it from files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from masktool.data_files import check_readable
from masktool.errors import MasktoolError
from masktool.files import sha256_of

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in the photograph's pixels; pixel i covers [i, i + 1]."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the data that could not be used.

    Attributes:
        where: the file, or the entry of a file.
        what: the reason, in one line.
    """

    where: str
    what: str


@dataclasses.dataclass(frozen=True)
class DatasetImage:
    """One image of a data set and its annotations.

    Attributes:
        name: name that is unique within the data set: the file's, or its path below the folder.
        path: path of the image.
        label: index of the image's class; None where it is unknown.
        boxes: boxes of the objects of that class; empty where none are known.
        object_mask: path of an image of the object's pixels (non-zero), or what ``numpy.asarray`` turns into (H, W)
            bool; None where unknown.
        segments: path of a label map to remove parts by; None where there is none.
    """

    name: str
    path: Path
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    object_mask: Path | ArrayLike | None = None
    segments: Path | None = None

    def digest(self) -> str:
        """Returns a digest of the image and of its annotations; files count by their content."""
        mask = self.object_mask
        known = [self.label, self.boxes, digest_of(self.path), digest_of(mask), digest_of(self.segments)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images in a fixed order.

    Attributes:
        images: the images that can be used.
        problems: values and entries of files that could not be used.
    """

    images: tuple[DatasetImage, ...]
    problems: tuple[Problem, ...] = ()


def digest_of(source: Path | ArrayLike | None) -> str | None:
    """Returns the SHA-256 of a file or of pixels; None where there is no source, or it cannot be read."""
    if source is None:
        return None
    if isinstance(source, Path):
        try:
            check_readable(source, "an image")  # a pipe would be read for ever
            return sha256_of(source)
        except (OSError, MasktoolError):
            return None  # measuring the image tells what is wrong with it
    pixels = np.ascontiguousarray(source)
    return hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode() + pixels.tobytes()).hexdigest()
