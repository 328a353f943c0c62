"""Volumes in NIfTI files, ``.nii`` and ``.nii.gz``, read through nibabel (the extra ``volumes``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.data_files import open_data
from masktool.errors import MasktoolError, reported_as
from masktool.extras import require_extra
from masktool.limits import check_limit
from masktool.runtime.checks import show_shape
from masktool.runtime.unwarned import unwarned

NIFTI_SUFFIXES = (".nii", ".nii.gz")
EXPECTED = "a NIfTI file"
SPATIAL = 3
"""Axes of a volume: i, j and k of the file."""


def is_nifti(path: Path) -> bool:
    """Tells by its name whether a file is a NIfTI file."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti(path: Path) -> NDArray[np.float32]:
    """Reads a volume (1, i, j, k) float32, by the file's own scaling; a fourth axis becomes the channels in front.

    The axes stay in the file's order: which of them a network calls depth, nobody can guess.

    Raises:
        MasktoolError: the file is missing, no NIfTI file, too large or no volume, or nibabel is not installed.
    """
    with open_data(path, EXPECTED):
        pass  # it is there, a file and within the limit
    with require_extra("reading NIfTI", "volumes"):
        import nibabel
    with reported_as("nibabel cannot read the volume", where=path), unwarned():
        file: Any = nibabel.load(path)
    shape = tuple(length for index, length in enumerate(file.shape) if index < SPATIAL or length != 1)
    if len(shape) not in (SPATIAL, SPATIAL + 1) or 0 in shape:
        got = show_shape(file.shape)
        raise MasktoolError("not a volume", where=path, expected="(i, j, k) or (i, j, k, c)", got=got)
    check_limit("pixels", math.prod(shape), where=path)
    with reported_as("nibabel cannot read the volume", where=path), unwarned():
        values: NDArray[np.float32] = np.asarray(file.get_fdata(dtype=np.float32)).reshape(shape)
    return values[None] if len(shape) == SPATIAL else np.ascontiguousarray(np.moveaxis(values, -1, 0))
