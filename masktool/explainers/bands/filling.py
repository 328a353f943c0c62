"""Images some of whose bands are missing, everywhere or at some places: a baseline stands there.

A missing band is no missing place. The mask of a file has one value for each place, so that layer masking cannot tell
one band from another: here the input is changed, and nothing is masked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout
from masktool.errors import MasktoolError
from masktool.explainers.bands.groups import BandGroup
from masktool.explainers.baseline_image import blur_along
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES
from masktool.messages import parameter


@dataclasses.dataclass(frozen=True, eq=False)
class BandFill:
    """One image, and what stands in its bands where they are missing.

    Attributes:
        image: the image as the model takes it, with the axis of the batch.
        baseline: what stands in for it, of the same shape.
        layout: the order of the axes.
    """

    image: NDArray[np.float32]
    baseline: NDArray[np.float32]
    layout: Layout

    @property
    def channels(self) -> int:
        """The number of bands."""
        return self.image.shape[CHANNEL_AXIS[self.layout]]

    def keep(self, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Returns images (M, ...) that keep some bands, (M, C), as they are."""
        shape = [1] * self.image.ndim
        shape[0], shape[CHANNEL_AXIS[self.layout]] = kept.shape
        return np.where(kept.reshape(shape), self.image, self.baseline)

    def hide(self, masks: NDArray[np.float32], group: BandGroup) -> NDArray[np.float32]:
        """Returns images (M, ...) in which masks (M, 1, ...) act on the bands of a group alone; 1 = kept.

        Where a mask is 1 the numbers are the image's to the last bit, and where it is 0 the baseline's.
        """
        in_group = np.isin(np.arange(self.channels), group.bands)
        axis = CHANNEL_AXIS[self.layout]
        weights = np.moveaxis(masks, 1, axis)
        shape = [1] * self.image.ndim
        shape[axis] = self.channels
        weights = np.where(in_group.reshape(shape), weights, np.float32(1))
        with np.errstate(invalid="ignore"):  # what is not finite is kept as it is, or goes
            mixed = self.image * weights + self.baseline * (1 - weights)
        return np.where(weights == 1, self.image, np.where(weights == 0, self.baseline, mixed)).astype(np.float32)


def make_fill(image: NDArray[np.float32], layout: Layout, baseline: str | tuple[float, ...]) -> BandFill:
    """Returns an image with what stands in its missing bands.

    Args:
        image: the image as the model takes it, with the axis of the batch.
        layout: the order of the axes.
        baseline: what stands in missing bands: a name, or numbers.

    Raises:
        MasktoolError: there are more or fewer numbers than bands.
    """
    axes = SPATIAL_AXES[layout]
    if baseline == "blur":
        sides = tuple(image.shape[axis] for axis in axes)
        filled = blur_along(image, axes, (min(sides), max(sides)))
    elif baseline == "image-mean":
        filled = image.mean(axis=axes, keepdims=True)
    else:
        filled = lay_numbers(image, layout, (0.0,) if isinstance(baseline, str) else baseline)
    whole = np.ascontiguousarray(np.broadcast_to(filled, image.shape), np.float32)
    return BandFill(np.asarray(image, np.float32), whole, layout)


def lay_numbers(image: NDArray[np.float32], layout: Layout, numbers: Sequence[float]) -> NDArray[np.float32]:
    """Returns one number for each band, in a form that can be laid over an image."""
    channels = image.shape[CHANNEL_AXIS[layout]]
    if len(numbers) not in (1, channels):
        raise MasktoolError(
            "numbers that do not fit the bands",
            where=parameter("band_baseline"),
            expected=f"1 or {channels} numbers",
            got=len(numbers),
        )
    shape = [1] * image.ndim
    shape[CHANNEL_AXIS[layout]] = len(numbers)
    return np.asarray(numbers, np.float32).reshape(shape)
