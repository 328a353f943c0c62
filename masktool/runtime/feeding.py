"""Checks what a model is fed: images, masks, a target and other inputs, by the names of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from masktool.contract import MASK_INPUT, TARGET_INPUT, TOP_CLASS, WEIGHTS_INPUT, Layout, Loss, Size
from masktool.layouts import SPATIAL_AXES
from masktool.runtime.checks import check_batches, check_images, check_masks, check_takes_mask
from masktool.runtime.gradients import check_kind, check_target_classes, check_weights, feed_loss, feed_weights
from masktool.runtime.inputs import Inputs, ask_top_class, check_others
from masktool.runtime.session_file import SessionFile


class Feed(NamedTuple):
    """Checked values by the inputs' names, and the number of results that they give."""

    values: dict[str, np.ndarray]
    results: int


def check_feed(
    file: SessionFile,
    images: npt.ArrayLike,
    masks: npt.ArrayLike | None,
    inputs: Inputs | None,
    outputs: Sequence[str] = (),
    results: int = 1,
) -> Feed:
    """Returns the checked values of the inputs; ``results`` where images or masks come later."""
    checked = check_images(images, file.metadata.image_input, file.input_shape, file.image_type)
    kept = None
    if masks is not None:
        check_takes_mask(file.metadata, file.path)
        kept = check_masks(masks, size_in(checked, file.layout), file.mask_type)
        check_batches(len(checked), len(kept))
    elif file.mask_required:
        kept = np.ones((1, 1, *size_in(checked, file.layout)), file.mask_type)
    pictures = 1 if file.metadata.takes_photograph else len(checked)
    results = max(pictures, results, 0 if kept is None else len(kept))
    asked = ask_top_class(file.other_inputs, file.explanation_outputs, outputs)
    others = check_others(file.other_inputs, inputs, results, asked)
    feed = {file.metadata.image_input: checked} | others
    if file.gradient_output is not None:
        feed |= feed_weights(file.output_shapes[file.gradient_output])
    elif file.has_gradient:
        feed[TARGET_INPUT] = np.zeros(1, np.int64)
    elif TARGET_INPUT in asked:
        feed[TARGET_INPUT] = check_target_classes(feed[TARGET_INPUT], results, file.n_classes, TOP_CLASS)
    return Feed(feed if kept is None else feed | {MASK_INPUT: kept}, results)


def size_in(images: np.ndarray, layout: Layout) -> Size:
    """Returns (height, width) of images, or the lengths of whatever axes of places they have."""
    return tuple(images.shape[axis] for axis in SPATIAL_AXES[layout])


def check_gradient_feed(
    file: SessionFile,
    images: npt.ArrayLike,
    masks: npt.ArrayLike | None,
    inputs: Inputs | None,
    target: npt.ArrayLike | None,
    loss: Loss | None,
    results: int = 1,
    weights: npt.ArrayLike | None = None,
) -> Feed:
    """Returns the checked values of the inputs for gradients of a target's score, or of an output's weighed values.

    Otherwise it is like :func:`check_feed`.
    """
    check_kind(file.metadata, file.path, target, weights, loss)
    feed = check_feed(file, images, masks, inputs, results=results)
    if file.gradient_output is not None and weights is not None:
        shape = file.output_shapes[file.gradient_output]
        feed.values[WEIGHTS_INPUT] = check_weights(weights, feed.results, shape, file.gradient_output)
        return feed
    assert target is not None  # as check_kind has seen
    feed.values[TARGET_INPUT] = check_target_classes(target, feed.results, file.n_classes)
    if loss is not None:
        feed.values.update(feed_loss(loss, file.metadata, file.path))
    return feed
