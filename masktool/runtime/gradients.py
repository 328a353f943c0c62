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
    WEIGHTS_INPUT,
    Loss,
    Metadata,
)
from masktool.errors import MasktoolError
from masktool.messages import Placeholder, call, parameter
from masktool.option_checks import check_named
from masktool.runtime.checks import show_shape

IMAGE, MASK = "image", "mask"
FEATURE_MAPS = "feature_maps"
"""All feature maps of a file, where :data:`DIFFERENTIABLE` has the first one alone."""
DIFFERENTIABLE = (IMAGE, MASK, FEATURE_MAP, FEATURE_MAPS)
"""Names of the values that gradients can be taken with respect to."""


@dataclasses.dataclass(frozen=True)
class Gradient:
    """Gradients of one number per (image, mask) pair.

    Attributes:
        objective: differentiated value, (B,) float32: the target's logit, its log-softmax or its softmax, or the
            entropy in nats of all scores; of an output the sum of its values, each times its weight.
        scores: class output of the same run, (B, K) float32; None where the gradients are of another output.
        image: gradient with respect to the image, float32 (B, C, H, W) or (B, H, W, C), as the image input; None where
            it was not asked for.
        mask: gradient with respect to the mask, (B, 1, H, W) float32; None where it was not asked for.
        feature_map: activations of the feature map, (B, c, h, w) float32; None where its gradient was not asked for.
        gradient_feature_map: gradient with respect to the feature map, (B, c, h, w) float32; None where it was not
            asked for.
        feature_maps: activations of every feature map of the file, (B, c, h, w) float32 each, in the order of
            ``metadata.feature_maps``; empty where ``feature_maps`` was not asked for.
        gradient_feature_maps: gradients with respect to these; empty where ``feature_maps`` was not asked for.
        output: values (B, ...) of the same run of the output whose gradients these are; None where they are of class
            scores.
    """

    objective: np.ndarray
    scores: np.ndarray | None = None
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    feature_map: np.ndarray | None = None
    gradient_feature_map: np.ndarray | None = None
    feature_maps: tuple[np.ndarray, ...] = ()
    gradient_feature_maps: tuple[np.ndarray, ...] = ()
    output: np.ndarray | None = None


def describe_differentiated(output: str | None) -> str:
    """Returns what gradients are of, in words: the output of a name; None stands for class scores."""
    return "class scores" if output is None else f"output {output!r}"


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


def check_weights(weights: npt.ArrayLike, results: int, shape: Sequence[int | None], output: str) -> np.ndarray:
    """Returns the weights of an output's values as the model takes them, (1, ...) or (B, ...) float32.

    Args:
        weights: weights, in the output's shape, for all results or one row for each.
        results: number of results of the pass.
        shape: shape of the output; None for an axis of any length.
        output: name of the output.

    Raises:
        MasktoolError: the weights are no real numbers, not finite, or of another shape.
    """
    array = np.asarray(weights)
    where = f"weights of output {output!r}"
    if array.dtype.kind not in "biuf":
        raise MasktoolError("wrong dtype", where=where, expected="float32", got=array.dtype)
    fits = array.ndim == len(shape) and all(
        length in (None, given) for length, given in zip(shape[1:], array.shape[1:], strict=True)
    )
    if not fits or len(array) not in (1, results):
        rows = "1" if results == 1 else f"1 or {results}"
        lengths = [rows, *("any" if length is None else str(length) for length in shape[1:])]
        raise MasktoolError(
            "wrong shape", where=where, expected=f"({', '.join(lengths)}): a row, or one for each result",
            got=show_shape(array.shape),
        )  # fmt: skip
    if not np.isfinite(array).all():
        raise MasktoolError("weights that are not finite", where=where, expected="numbers", got="NaN or infinity")
    return np.ascontiguousarray(array, np.float32)


def check_kind(
    metadata: Metadata, path: Path, target: npt.ArrayLike | None, weights: npt.ArrayLike | None, loss: Loss | None
) -> None:
    """Raises MasktoolError unless a file is asked for what it differentiates: class scores, or one of its outputs.

    Args:
        metadata: metadata of the file.
        path: path of the file.
        target: target that was given.
        weights: weights that were given.
        loss: form of the target's score that was given.
    """
    output = metadata.gradient_output
    if output is None and weights is not None:
        raise MasktoolError(
            "the file's gradients are of class scores, whose values are not weighed",
            where=path,
            got="weights",
            fix="give the target, or export it again: "
            + call("export", metadata.source, "NEW.onnx", gradient_output=Placeholder("NAME")),
        )
    if output is None and target is None:
        raise MasktoolError(
            "the file's gradients are of one class's score", where=path, expected="the index of a class as target"
        )
    given = [name for name, value in (("target", target), ("loss", loss)) if value is not None]
    if output is not None and given:
        raise MasktoolError(
            f"the file's gradients are of the values of output {output!r}, and not of class scores",
            where=path,
            got=", ".join(given),
            fix="give weights in the output's shape, or export it again: "
            + call("export", metadata.source, "NEW.onnx", gradient="logit"),
        )
    if output is not None and weights is None:
        raise MasktoolError(
            f"the values of output {output!r} have no weights", where=path, expected="weights in the output's shape"
        )


def feed_weights(shape: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Returns weights of 0 for a pass of which no gradient is wanted, by the input's name.

    Args:
        shape: shape of the output; None for an axis of any length, along which one number serves all.
    """
    return {WEIGHTS_INPUT: np.zeros([1, *(length or 1 for length in shape[1:])], np.float32)}


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
