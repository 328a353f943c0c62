"""The gradients that a file with gradients gives besides its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masktool.contract import (
    FEATURE_MAP,
    FEATURE_MAP_OUTPUTS,
    GRADIENT_PREFIX,
    LOSS_INPUT,
    LOSSES,
    OBJECTIVE,
    Loss,
    Metadata,
)
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.option_checks import check_named

IMAGE, MASK = "image", "mask"
FEATURE_MAPS = "feature_maps"
"""All feature maps of a file, where :data:`DIFFERENTIABLE` has the first one alone."""
DIFFERENTIABLE = (IMAGE, MASK, FEATURE_MAP, FEATURE_MAPS)
"""Names of the values that gradients can be taken with respect to."""


@dataclasses.dataclass(frozen=True)
class Gradient:
    """Gradients of one score per (image, mask) pair.

    Attributes:
        objective: differentiated value, (B,) float32: the target's logit, its log-softmax or its softmax, or the
            entropy in nats of all scores.
        scores: class output of the same run, (B, K) float32.
        image: gradient with respect to the image, float32 (B, C, H, W) or (B, H, W, C), as the image input; None where
            it was not asked for.
        mask: gradient with respect to the mask, (B, 1, H, W) float32; None where it was not asked for.
        feature_map: activations of the feature map, (B, c, h, w) float32; None where its gradient was not asked for.
        gradient_feature_map: gradient with respect to the feature map, (B, c, h, w) float32; None where it was not
            asked for.
        feature_maps: activations of every feature map of the file, (B, c, h, w) float32 each, in the order of
            ``metadata.feature_maps``; empty where ``feature_maps`` was not asked for.
        gradient_feature_maps: gradients with respect to these; empty where ``feature_maps`` was not asked for.
    """

    objective: np.ndarray
    scores: np.ndarray
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    feature_map: np.ndarray | None = None
    gradient_feature_map: np.ndarray | None = None
    feature_maps: tuple[np.ndarray, ...] = ()
    gradient_feature_maps: tuple[np.ndarray, ...] = ()


def outputs_for(of: Sequence[str], available: Sequence[str]) -> list[str]:
    """Returns the names of the outputs to compute for gradients with respect to the values named in ``of``.

    Args:
        of: names from :data:`DIFFERENTIABLE`.
        available: names of the file's outputs.

    Raises:
        MasktoolError: a name is unknown, or the file does not hold the gradient.
    """
    held = {known: held_outputs(known, available) for known in DIFFERENTIABLE}
    names = [OBJECTIVE]
    for name in of:
        if not held.get(name):
            expected = f"some of {', '.join(known for known, outputs in held.items() if outputs)}"
            raise MasktoolError("no such gradient", where=f"of {name!r}", expected=expected)
        names += held[name]
    return list(dict.fromkeys(names))


def held_outputs(name: str, available: Sequence[str]) -> list[str]:
    """Returns the outputs for one name from :data:`DIFFERENTIABLE`: gradients, and the feature maps that they are of.

    Args:
        name: the name.
        available: names of the file's outputs.
    """
    maps = FEATURE_MAP_OUTPUTS if name == FEATURE_MAPS else (name,)
    held = [each for each in maps if GRADIENT_PREFIX + each in available]
    return [GRADIENT_PREFIX + each for each in held] + [each for each in held if each in FEATURE_MAP_OUTPUTS]


def check_target_classes(target: npt.ArrayLike, results: int, classes: int | None, lowest: int = 0) -> np.ndarray:
    """Returns the target classes as the model takes them, (1,) or (B,) int64.

    Args:
        target: index of one class, or of one for each result.
        results: number of results of the pass.
        classes: number of classes; None where it is unknown.
        lowest: smallest number that is taken.

    Raises:
        MasktoolError: the target is neither one index of a class nor one such index for each result.
    """
    array = np.atleast_1d(np.asarray(target))
    if array.dtype.kind not in "iu" or array.ndim != 1 or len(array) not in (1, results):
        raise MasktoolError(
            "wrong target",
            expected=f"one class index, or one for each of {results} results",
            got=f"{array.dtype} {array.shape}",
        )
    if (array < lowest).any() or (classes is not None and (array >= classes).any()):
        expected = f"{lowest} to {'the last class' if classes is None else classes - 1}"
        raise MasktoolError("no such class", where="target", expected=expected, got=array.tolist())
    return array.astype(np.int64)


def feed_loss(loss: Loss, metadata: Metadata, path: Path) -> dict[str, np.ndarray]:
    """Returns the input ``loss`` of a file by its name: the loss's index; nothing for a portable file, of one loss.

    Raises:
        MasktoolError: there is no such loss, or not in this file.
    """
    check_named("loss", loss, LOSSES)
    if loss not in metadata.known_losses:
        of_one = "a portable file gives the gradients of one loss"
        raise MasktoolError(
            of_one if metadata.portable else "the file was written before there was this loss",
            where=path,
            expected=" | ".join(metadata.known_losses),
            got=loss,
            fix=f"export {metadata.source} again with " + parameter("gradient", loss),
        )
    return {} if metadata.portable else {LOSS_INPUT: np.array(metadata.known_losses.index(loss), np.int64)}
