"""The image that is explained: a photograph, or an array for networks that take something else."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Layout, Preprocessing, Size
from masktool.errors import MasktoolError
from masktool.explainers.pixels import array_pixels, model_pixels
from masktool.layouts import RANKS, SPATIAL_AXES, TO_CHANNELS_FIRST, layouts_of_rank, show_size
from masktool.limits import check_limit
from masktool.messages import parameter
from masktool.runtime.arrays import ARRAY_SUFFIX, prepare_array, read_array
from masktool.runtime.band_files import read_bands
from masktool.runtime.images import notes_of, read_image, to_rgb
from masktool.runtime.nifti import is_nifti, read_nifti
from masktool.runtime.preprocessing import PreparedImage, prepare
from masktool.runtime.session import MaskedSession

Picture = Image.Image | NDArray[np.float32]
"""What people are shown beneath a map: an RGB picture; of a signal or a volume its numbers, (C, L) or (C, D, H, W)."""
ImageLike = Image.Image | NDArray[Any] | str | os.PathLike[str]
ARRAY_RANKS = range(2, max(RANKS) + 1)
"""Ranks of arrays: from a signal to a volume with the axis of a batch."""
IMAGE_RANK = 4
"""Rank of the input of a network of images."""
PHOTOGRAPH_CHANNELS = (1, 3, None)
"""Numbers of input channels that a photograph can be prepared for; None is an open number."""


@dataclasses.dataclass(frozen=True, eq=False)
class NamedImage:
    """An image that was read, and what to call it.

    Attributes:
        name: the name of its file, or a word for it.
        image: a photograph or an array, as :func:`read_subject` returns it.
    """

    name: str
    image: Image.Image | NDArray[Any]

    @property
    def is_photograph(self) -> bool:
        """Whether it is a photograph, and no array that is the model's input already."""
        return isinstance(self.image, Image.Image)


@dataclasses.dataclass(frozen=True)
class Subject:
    """The image that is explained, as the model's input and as a picture for people.

    Attributes:
        prepared: the model's input, and the way back to the pixels of the original image.
        original: the RGB picture to draw beneath the map: the photograph, or an array's channels as a picture; of a
            signal or a volume its numbers, the channels first.
        preprocessing: the preprocessing that prepared the photograph; None for an array.
        notes: what the user should know about how the photograph was read, one sentence each.
        photograph: the photograph, (H0, W0, 3) uint8, for a file that prepares it itself; None for any other file.
    """

    prepared: PreparedImage
    original: Picture
    preprocessing: Preprocessing | None
    notes: tuple[str, ...] = ()
    photograph: NDArray[np.uint8] | None = None

    @property
    def fed(self) -> NDArray[Any]:
        """What the file is fed: the model's input, or the photograph where the file prepares it."""
        return self.prepared.array if self.photograph is None else self.photograph

    @functools.cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The model's input as a picture, (h, w, 3) uint8 RGB; made on first use, since few methods need it.

        Of a signal or a volume it is (l, 3) or (d, h, w, 3).
        """
        if not isinstance(self.original, Image.Image):
            first, _ = layouts_of_rank(self.original.ndim + 1)
            return array_pixels(self.original[None], first)
        if self.preprocessing is None:
            return np.array(self.original)
        return model_pixels(self.prepared.array, self.preprocessing)


def read_subject(image: ImageLike) -> Image.Image | NDArray[Any]:
    """Returns an RGB photograph, the right way up, or an array that is the model's input already.

    Args:
        image: a Pillow image; (H, W, 3) uint8 RGB, which is a photograph too; any other array of numbers; or the path
            of an image, of a TIFF of many bands, or of a ``.npy`` or NIfTI file.

    Raises:
        MasktoolError: the file cannot be read, or the array is empty or of another rank.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if path.suffix.lower() == ARRAY_SUFFIX:
            image = read_array(path)
        elif is_nifti(path):
            image = read_nifti(path)
        elif (bands := read_bands(path)) is not None:
            return bands
        else:
            return read_image(path)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = np.asarray(image)
    if array.ndim not in ARRAY_RANKS or array.size == 0 or array.dtype.kind not in "biuf":
        raise MasktoolError(
            "not an image",
            expected="(H, W, 3) uint8 RGB, or the model's input as (C, H, W) or (H, W, C), or of another rank",
            got=f"{array.shape} {array.dtype}",
        )
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    return array


def read_named(image: ImageLike | NamedImage) -> NamedImage:
    """Returns an image, as :func:`read_subject` reads it, with a name; one that has a name already as it is."""
    if isinstance(image, NamedImage):
        return image
    name = Path(image).name if isinstance(image, str | os.PathLike) else "another image"
    return NamedImage(name, read_subject(image))


def make_subject(image: Image.Image | NDArray[Any], session: MaskedSession, input_size: Size | None = None) -> Subject:
    """Prepares an image for a model.

    Args:
        image: a photograph or an array, as :func:`read_subject` returns it.
        session: the session of the model.
        input_size: (height, width) of the image input in pixels, for a model that leaves them open.

    Raises:
        MasktoolError: the image does not fit the model, or the file does not say how to prepare a photograph.
    """
    if isinstance(image, Image.Image):
        return photograph_subject(image, session, input_size)
    if session.metadata.takes_photograph:
        raise MasktoolError(
            "the file prepares photographs itself, and takes nothing else",
            where=session.path,
            expected="a photograph, or (H, W, 3) uint8 RGB",
            got=f"{image.shape} {image.dtype}",
        )
    layout = session.layout
    prepared = prepare_array(image, session.input_shape, layout)
    if input_size not in (None, prepared.size):
        raise MasktoolError("an array of another size", where="image", expected=input_size, got=prepared.size)
    if prepared.crop_box is None:  # no image
        return Subject(prepared, prepared.array.transpose(TO_CHANNELS_FIRST[layout])[0], None)
    return Subject(prepared, Image.fromarray(array_pixels(prepared.array, layout)), None)


def photograph_subject(photograph: Image.Image, session: MaskedSession, input_size: Size | None) -> Subject:
    """Prepares a photograph with the preprocessing of the model's file."""
    is_image = len(session.layout) == IMAGE_RANK
    if session.channels not in PHOTOGRAPH_CHANNELS or not is_image:
        sides = [side or letter for side, letter in zip(session.spatial_shape, axes_of(session.layout), strict=True)]
        first, last = (", ".join(map(str, each)) for each in ([session.channels, *sides], [*sides, session.channels]))
        raise MasktoolError(
            "the model takes no photographs",
            where=session.path,
            got=f"{session.channels} channels" if is_image else f"an input ({', '.join(session.layout)})",
            fix=f"give its input as a .npy file or an array, ({first}) or ({last})",
        )
    preprocessing = session.metadata.preprocessing
    if preprocessing is not None:
        size = choose_size(session, preprocessing, input_size)
        check_limit("values", size[0] * size[1] * len(preprocessing.mean), where="the model's input")
        preprocessing = preprocessing.scaled_to(size)
    prepared = prepare(photograph, preprocessing)
    fed = np.asarray(photograph) if session.metadata.takes_photograph else None
    return Subject(prepared, photograph, preprocessing, notes_of(photograph), fed)


def axes_of(layout: Layout) -> list[str]:
    """Returns the letters of a layout's axes of places."""
    return [layout[axis] for axis in SPATIAL_AXES[layout]]


def choose_size(session: MaskedSession, preprocessing: Preprocessing, input_size: Size | None) -> tuple[int, int]:
    """Returns (height, width) of the model's input: as the model fixes it, else as the user asks, else the file's.

    Raises:
        MasktoolError: the model does not take the size that the user asks for.
    """
    sides = session.spatial_shape
    wanted = input_size or preprocessing.size
    if input_size is not None and not (
        len(sides) == len(input_size) and all(side in (None, own) for side, own in zip(sides, input_size, strict=True))
    ):
        raise MasktoolError(
            "input size fixed by the model",
            where=session.path,
            expected=show_size([side or "any" for side in sides]),
            got=show_size(input_size),
            fix="leave " + parameter("input_size") + " out",
        )
    return sides[0] or wanted[0], sides[1] or wanted[1]
