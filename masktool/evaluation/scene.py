"""One image at the model's input, with its annotations brought there."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Size
from masktool.datasets.dataset import Box, DatasetImage
from masktool.errors import MasktoolError
from masktool.explainers.segmentation import read_label_map
from masktool.explainers.subject import Subject, make_subject, read_subject
from masktool.layouts import refuse_unless_images
from masktool.messages import call, parameter
from masktool.runtime.preprocessing import PreparedImage
from masktool.runtime.session import MaskedSession

HALF_PIXEL = 0.5
"""Offset of a pixel's centre: a pixel belongs to a box when its centre does."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One image at the model's input, with its annotations.

    Attributes:
        known: entry of the data set for the image: its path and annotations.
        image: photograph as it was read, or an array that is the model's input.
        subject: photograph prepared for the model.
        boxes: boxes of the objects, (x0, y0, x1, y1) in the input's pixels, cut at its borders; without those that the
            crop left out.
        inside: pixels of the object, (h, w) bool, from its mask, else those in its boxes; None where neither is known.
    """

    known: DatasetImage
    image: Image.Image | NDArray[Any]
    subject: Subject
    boxes: tuple[Box, ...]
    inside: NDArray[np.bool_] | None

    @property
    def array(self) -> NDArray[np.float32]:
        """The model's input, of batch 1."""
        array: NDArray[np.float32] = self.subject.prepared.array
        return array

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The model's input as an image to look at, (h, w, 3) uint8 RGB."""
        return self.subject.pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def random(self, seed: int) -> np.random.Generator:
        """Returns random numbers that depend on this image and the seed alone, not on the images measured before it."""
        return np.random.default_rng([seed, zlib.crc32(self.known.name.encode())])

    def at_input(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Returns a map (H0, W0) over the photograph, brought to the model's input (h, w)."""
        return self.subject.prepared.from_original(labels)


def read_scene(known: DatasetImage, session: MaskedSession) -> Scene:
    """Returns an image of a data set at a model's input.

    Raises:
        MasktoolError: the image or its object mask cannot be read, or they differ in size.
    """
    refuse_unless_images(session.layout, "an evaluation", "explain a single array by " + call("explain", "FILE", ...))
    image = read_subject(known.path)
    subject = make_subject(image, session)
    boxes = tuple(box for box in (move_box(each, subject.prepared) for each in known.boxes) if box is not None)
    inside = None
    if known.object_mask is not None:
        mask = read_label_map(known.object_mask) if isinstance(known.object_mask, Path) else known.object_mask
        inside = subject.prepared.from_original(np.asarray(mask) != 0)
    elif known.boxes:
        inside = fill_boxes(boxes, subject.prepared.size)
    return Scene(known, image, subject, boxes, inside)


def move_box(box: Box, prepared: PreparedImage) -> Box | None:
    """Returns a box of the photograph in the input's pixels, cut at its borders; None where the crop left it out."""
    assert prepared.crop_box is not None  # a scene is of an image
    left, top, right, bottom = prepared.crop_box
    height, width = prepared.size
    across, down = width / (right - left), height / (bottom - top)
    x0, x1 = (min(max((x - left) * across, 0), width) for x in (box[0], box[2]))
    y0, y1 = (min(max((y - top) * down, 0), height) for y in (box[1], box[3]))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def fill_boxes(boxes: tuple[Box, ...], size: Size) -> NDArray[np.bool_]:
    """Returns the union of boxes as (h, w) bool."""
    rows, columns = np.arange(size[0])[:, None] + HALF_PIXEL, np.arange(size[1]) + HALF_PIXEL
    inside = np.zeros(size, np.bool_)
    for x0, y0, x1, y1 in boxes:
        inside |= (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
    return inside


def require_label(scene: Scene) -> int:
    """Returns the index of an image's true class.

    Raises:
        MasktoolError: the class is not known.
    """
    if scene.known.label is None:
        raise MasktoolError("no label", where=scene.known.name, fix="name it in " + parameter("labels"))
    return scene.known.label
