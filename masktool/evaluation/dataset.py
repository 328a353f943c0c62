"""A set of images with what is known of them; :mod:`masktool.evaluation.annotations` reads it from files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.findings import Problem

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in the photograph's pixels; pixel i covers [i, i + 1]."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and what is known of it.

    Attributes:
        name: unique within the dataset, as messages and results show it; the file's name, or its path below the folder.
        path: of the image.
        label: index of its true class, where known.
        boxes: of the objects of that class; empty where none are known.
        object_mask: file with the object's pixels (non-zero), or the pixels (H, W) bool themselves; None where unknown.
        segments: file with a label map to remove parts by; None where there is none.
    """

    name: str
    path: Path
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    object_mask: Path | NDArray[np.bool_] | None = None
    segments: Path | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images in a fixed order.

    Attributes:
        samples: those that can be used.
        problems: what was wrong with the rest, and with entries that belong to no image.
    """

    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
