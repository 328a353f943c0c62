"""Gradients of targets from files that hold those of one class's score: a pass for each class that a target reads.

With g_c the gradient of the score of class c and w_c the derivative of the target with respect to that score, which may
differ from image to image, the gradient of the target is the sum over c of w_c g_c.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import Loss
from masktool.explainers.target import SettledTarget
from masktool.runtime.gradients import Gradient
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession


class GradientRequest(NamedTuple):
    """What is asked of the model besides images, masks and classes.

    Attributes:
        session: a session whose file holds gradients.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        loss: the form of a class's score.
        of: the names of the values to differentiate with respect to.
    """

    session: MaskedSession
    inputs: Inputs
    loss: Loss
    of: Sequence[str]

    def run(self, images: npt.ArrayLike, masks: npt.ArrayLike | None, classes: npt.ArrayLike) -> Gradient:
        """Returns the gradients of classes' scores, one class for each result or one for all, in one pass."""
        return self.session.gradient(images, masks, self.inputs, target=classes, loss=self.loss, of=self.of)


def count_gradients(targets: Sequence[SettledTarget]) -> int:
    """Returns the number of passes that one gradient of each target takes."""
    return sum(len(target.classes) for target in targets)


def differentiate_targets(
    request: GradientRequest,
    images: NDArray[np.float32],
    masks: NDArray[np.float32] | None,
    targets: Sequence[SettledTarget],
) -> Gradient:
    """Returns the gradients of targets, one for each image.

    Args:
        request: what is asked besides.
        images: the images, (n, ...).
        masks: the masks, (n, 1, h, w); None masks nothing.
        targets: the target of each image, (n,); all are functions of at least one class's logit.
    """
    counts = np.array([len(target.classes) for target in targets])
    if counts.max() == 1:
        return request.run(images, masks, np.array([target.classes[0] for target in targets], np.int64))
    passes: list[Gradient] = []
    rows_of_passes: list[NDArray[np.intp]] = []
    for position in range(counts.max()):
        rows = np.flatnonzero(counts > position)
        classes = np.array([targets[row].classes[position] for row in rows.tolist()], np.int64)
        passes.append(request.run(images[rows], None if masks is None else masks[rows], classes))
        rows_of_passes.append(rows)
    return combine_passes(targets, passes, rows_of_passes)


def combine_passes(
    targets: Sequence[SettledTarget], passes: Sequence[Gradient], rows_of_passes: Sequence[NDArray[np.intp]]
) -> Gradient:
    """Returns the gradients of targets from those of their classes.

    Args:
        targets: the target of each image.
        passes: gradients of one class of each target that has so many.
        rows_of_passes: the positions of the images in each pass; all of them in the first.
    """
    logits = np.zeros((len(targets), len(passes)), np.float32)
    for position, (found, rows) in enumerate(zip(passes, rows_of_passes, strict=True)):
        logits[rows, position] = found.objective
    values, weights = np.zeros(len(targets), np.float32), np.zeros_like(logits)
    for target in dict.fromkeys(targets):
        rows = np.array([row for row, each in enumerate(targets) if each == target])
        combined = target.combine(logits[rows, : len(target.classes)])
        values[rows], weights[rows, : len(target.classes)] = combined.values, combined.weights

    def add_up(parts: Sequence[NDArray[Any] | None]) -> NDArray[np.float32] | None:
        if parts[0] is None:
            return None
        total = np.zeros_like(parts[0])
        for position, (each, rows) in enumerate(zip(parts, rows_of_passes, strict=True)):
            assert each is not None  # all passes were asked for the same
            total[rows] += weights[rows, position].reshape(-1, *[1] * (each.ndim - 1)) * each
        return total

    maps = zip(*(found.gradient_feature_maps for found in passes), strict=True)
    return dataclasses.replace(
        passes[0],
        objective=values,
        image=add_up([found.image for found in passes]),
        mask=add_up([found.mask for found in passes]),
        gradient_feature_map=add_up([found.gradient_feature_map for found in passes]),
        gradient_feature_maps=tuple(total for parts in maps if (total := add_up(parts)) is not None),
    )
