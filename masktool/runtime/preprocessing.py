"""From a photograph to the model's input, and from maps over the input back to the photograph.

The steps are those of torchvision's and timm's evaluation transforms, pixel for pixel: resize with antialiasing, centre
crop, scale, normalise. Coordinates are continuous: pixel i covers [i, i + 1], so its centre is at i + 0.5.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from masktool.contract import DEFAULT_SIZE, Preprocessing, Size
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.normalisation import normalise

LARGEST_INTERMEDIATE = 16_000_000
"""Pixels (48 MB) up to which a photograph is resized as a whole and then cropped, even where that enlarges it; beyond
(a strip of 20,000 x 7 grows to 731,428 x 256) only what falls into the crop is computed."""
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedImage:
    """A photograph as the model takes it, and the way back.

    Attributes:
        array: model's input, float32 (1, C, H, W), or (1, H, W, C) for an NHWC model.
        size: (H, W) of the model's input; of a signal (L,), of a volume (D, H, W).
        original_size: (H0, W0) of the photograph; of signals and volumes, which are taken as they are, their ``size``.
        crop_box: box that the model's input covers, (x0, y0, x1, y1) in the photograph's pixels; it reaches outside the
            photograph where the input was padded. None of signals and volumes.
    """

    array: np.ndarray
    size: Size
    original_size: Size
    crop_box: Box | None

    def to_original(self, attributions: np.ndarray) -> np.ndarray:
        """Brings a map over the model's input into the photograph's pixels.

        Args:
            attributions: map (h, w), of any resolution, covering the whole input.

        Returns:
            float32 (H0, W0), bilinear between the map's pixel centres; NaN where a pixel's centre is outside the crop.
        """
        values = np.asarray(attributions, dtype=np.float32)
        if self.crop_box is None:
            return enlarge_axes(values, self.original_size)
        x0, y0, x1, y1 = self.crop_box
        if values.shape == self.original_size and self.crop_box == (0, 0, values.shape[1], values.shape[0]):
            return values.copy()
        rows = find_sources(self.original_size[0], y0, y1, values.shape[0])
        columns = find_sources(self.original_size[1], x0, x1, values.shape[1])
        result = np.full(self.original_size, np.nan, dtype=np.float32)
        across = np.ascontiguousarray(interpolate(values, rows).T)  # rows are gathered faster than columns
        inside = interpolate(across, columns).T
        result[rows.first : rows.first + len(rows.lower), columns.first : columns.first + len(columns.lower)] = inside
        return result

    def from_original(self, labels: np.ndarray) -> np.ndarray:
        """Brings a map over the photograph into the model's input, taking the nearest pixel.

        Args:
            labels: map (H0, W0), of any type.

        Returns:
            The map (H, W), of the same type; padding takes the label of the photograph's nearest edge.

        Raises:
            MasktoolError: the map is not of the photograph's size.
        """
        labels = np.asarray(labels)
        if labels.shape != self.original_size:
            raise MasktoolError(
                "map of the wrong size", expected=f"the photograph's {self.original_size}", got=labels.shape
            )
        if self.crop_box is None:
            return labels
        x0, y0, x1, y1 = self.crop_box
        rows = find_nearest(self.size[0], y0, y1, labels.shape[0])
        columns = find_nearest(self.size[1], x0, x1, labels.shape[1])
        return labels[np.ix_(rows, columns)]


def whole_box(size: Size) -> Box | None:
    """Returns the box of an image that is taken as a whole; None of signals and volumes."""
    return (0.0, 0.0, float(size[1]), float(size[0])) if len(size) == len(DEFAULT_SIZE) else None


def enlarge_axes(values: np.ndarray, size: Size) -> np.ndarray:
    """Returns a map of any rank brought to another size, linearly along each axis."""
    result = values.copy()
    for axis, length in enumerate(size):
        if result.shape[axis] != length:
            along = np.moveaxis(result, axis, 0)
            flat = interpolate(along.reshape(len(along), -1), find_sources(length, 0, length, len(along)))
            result = np.moveaxis(flat.reshape(length, *along.shape[1:]), 0, axis)
    return result


class Sources(NamedTuple):
    """Interpolation along one axis: the first target pixel inside; from it on, two source pixels and a weight each."""

    first: int
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray


def find_sources(length: int, start: float, end: float, source_length: int) -> Sources:
    """Returns the source pixels that each of ``length`` target pixels takes; the source covers [start, end] of them."""
    fractions = (np.arange(length) + 0.5 - start) / (end - start)
    inside = np.flatnonzero((fractions >= 0) & (fractions <= 1))
    positions = np.clip(fractions[inside] * source_length - 0.5, 0, source_length - 1)
    lower = positions.astype(np.intp)
    upper = np.minimum(lower + 1, source_length - 1)
    return Sources(int(inside[0]) if len(inside) else 0, lower, upper, (positions - lower).astype(np.float32))


def interpolate(values: np.ndarray, sources: Sources) -> np.ndarray:
    """Returns values (n, m) interpolated linearly along their first axis."""
    lower, result = values[sources.lower], values[sources.upper]
    result -= lower
    result *= sources.weight[:, None]
    result += lower
    return result


def find_nearest(length: int, start: float, end: float, source_length: int) -> np.ndarray:
    """Returns the source pixel under the centre of each of ``length`` pixels that cover [start, end] of the source."""
    centres = start + (np.arange(length) + 0.5) * ((end - start) / length)
    return np.clip(np.floor(centres).astype(np.intp), 0, source_length - 1)


def prepare(image: Image.Image, preprocessing: Preprocessing | None) -> PreparedImage:
    """Returns the model's input, made from a photograph.

    Args:
        image: photograph, as :func:`masktool.runtime.read_image` gives it; other modes are converted.
        preprocessing: preprocessing in the model's file; None where the file has none, which is an error.

    Raises:
        MasktoolError: the file has no preprocessing, or its settings do not fit together.
    """
    if preprocessing is None:
        raise MasktoolError(
            "the file does not say how to prepare a photograph",
            where="preprocessing",
            fix="export again with "
            + parameter("preprocessing")
            + ", or give the model's input as an array or a .npy file",
        )
    mode = "L" if preprocessing.channel_order == "L" else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    resized_size = find_resized_size(image.size, preprocessing)
    left, top = (find_crop_start(*pair) for pair in zip(resized_size, preprocessing.size[::-1], strict=True))
    pixels = cut_pixels(image, resized_size, (left, top), preprocessing)
    array = place_pixels(normalise(pixels, preprocessing), (left, top), preprocessing.size, find_padding(preprocessing))
    scale_x, scale_y = image.width / resized_size[0], image.height / resized_size[1]
    height, width = preprocessing.size
    return PreparedImage(
        array=np.ascontiguousarray(array[None] if preprocessing.layout == "NHWC" else array.transpose(2, 0, 1)[None]),
        size=(height, width),
        original_size=(image.height, image.width),
        crop_box=(left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y),
    )


def find_resized_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Returns the size to which a photograph of (width, height) is resized; the longer side is rounded down."""
    width, height = size
    if preprocessing.resize == "none":
        return size
    if preprocessing.resize == "exact":
        return preprocessing.size[1], preprocessing.size[0]
    if preprocessing.resize == "letterbox":
        share = min(preprocessing.size[1] / width, preprocessing.size[0] / height)
        return max(1, round(width * share)), max(1, round(height * share))
    if preprocessing.resize_to is None:
        raise MasktoolError("preprocessing without a resize_to", expected="the shorter side's length in pixels")
    short = preprocessing.resize_to
    long = int(short * max(size) / min(size))
    return (short, long) if width <= height else (long, short)


def find_crop_start(length: int, crop: int) -> int:
    """Returns where a centre crop starts along one axis; negative where the image is shorter and gets padded.

    torchvision rounds half to even when it cuts, and pads the smaller half in front.
    """
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def cut_pixels(
    image: Image.Image, resized_size: tuple[int, int], start: tuple[int, int], preprocessing: Preprocessing
) -> np.ndarray:
    """Returns the resized and cropped photograph, uint8 (h, w, C): the part of the crop that the photograph fills."""
    height, width = preprocessing.size
    left, top = max(start[0], 0), max(start[1], 0)
    right, bottom = min(start[0] + width, resized_size[0]), min(start[1] + height, resized_size[1])
    filter_ = Image.Resampling[preprocessing.interpolation.upper()]
    if resized_size == image.size:
        cut = image.crop((left, top, right, bottom))
    elif resized_size[0] * resized_size[1] <= max(LARGEST_INTERMEDIATE, image.width * image.height):
        cut = image.resize(resized_size, filter_).crop((left, top, right, bottom))
    else:
        cut = resize_within(image, resized_size, (left, top, right, bottom), filter_)
    pixels = np.asarray(cut)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def resize_within(
    image: Image.Image, size: tuple[int, int], crop: tuple[int, int, int, int], filter_: Image.Resampling
) -> Image.Image:
    """Returns the pixels of ``image.resize(size, filter_).crop(crop)`` without ever holding the whole resized image.

    Columns first, then rows, as Pillow does when it enlarges; it rounds to 8 bits in between, so the order shows. What
    is left is the rounding of the box to single precision: two grey levels at most on pure noise, and a neighbour
    taken where ``nearest`` is undecided.
    """
    left, top, right, bottom = crop
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    columns = image.resize((right - left, image.height), filter_, (left * scale_x, 0, right * scale_x, image.height))
    return columns.resize((right - left, bottom - top), filter_, (0, top * scale_y, right - left, bottom * scale_y))


def find_padding(preprocessing: Preprocessing) -> np.ndarray:
    """Returns what stands around a smaller photograph, one number for each channel of the input."""
    channels = len(preprocessing.mean)
    if preprocessing.padding is None:
        return np.zeros(channels, np.float32)
    return normalise(np.full((1, 1, channels), float(preprocessing.padding)), preprocessing)[0, 0]


def place_pixels(values: np.ndarray, start: tuple[int, int], size: tuple[int, int], padding: np.ndarray) -> np.ndarray:
    """Returns values (h, w, C) padded to (H, W, C) where the crop starts outside the photograph.

    Args:
        values: the values.
        start: where the crop starts, (left, top) in pixels of the values.
        size: (H, W).
        padding: what stands around them, (C,).
    """
    if values.shape[:2] == size:
        return values
    padded = np.broadcast_to(padding.astype(np.float32), (*size, values.shape[2])).copy()
    top, left = max(-start[1], 0), max(-start[0], 0)
    padded[top : top + values.shape[0], left : left + values.shape[1]] = values
    return padded
