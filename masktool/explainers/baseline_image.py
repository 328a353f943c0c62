"""The image that a method puts in place of missing pixels, from a baseline as ``fill`` masking takes it.

``image-mean`` and ``blur`` are the mean and the blur of the whole image; in a file with ``fill`` masking, of the kept
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from masktool.baselines import BLUR_SIGMA, EXPECTED, constant_baseline, read_baseline
from masktool.errors import MasktoolError
from masktool.explainers.task import Differentiable, Task
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES, refuse_unless_images


def check_baseline(name: str, value: object) -> str:
    """Returns a baseline as text, or raises a MasktoolError that names the option."""
    baseline = read_baseline(value)
    if baseline is None:
        raise MasktoolError("option out of range", where=name, expected=EXPECTED, got=repr(value))
    return baseline


def baseline_image(task: Task, model: Differentiable, baseline: str) -> NDArray[np.float32]:
    """Returns a baseline in the form of the model's input, of the shape of ``task.prepared.array``.

    Raises:
        MasktoolError: the file holds no preprocessing, which the colour needs, or the colour does not fit the channels.
    """
    image, layout = task.prepared.array, model.session.layout
    axes = SPATIAL_AXES[layout]
    if baseline == "image-mean":
        return np.broadcast_to(image.mean(axis=axes, keepdims=True), image.shape).astype(np.float32)
    if baseline == "blur":
        refuse_unless_images(layout, "the baseline blur", "take mean or image-mean")
        return blur_along(image, axes, task.image_size)
    values = constant_baseline(
        baseline,
        (image.shape[CHANNEL_AXIS[layout]], *task.size),
        model.session.metadata.preprocessing,
        layout,
        where=f"baseline {baseline}",
        seed=task.seed,
    )
    return np.ascontiguousarray(np.broadcast_to(values, image.shape))


def blur_along(values: NDArray[np.float32], axes: Sequence[int], size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns values blurred along some axes as the baseline ``blur`` is, for an image of ``size`` (height, width)."""
    side = BLUR_SIGMA * min(size)
    sigma = [side if axis in axes else 0 for axis in range(values.ndim)]
    from skimage.filters import gaussian  # a third of what an explanation that needs no blur would import

    return gaussian(values, sigma, mode="nearest", preserve_range=True).astype(np.float32)
