"""From what a model puts out to one probability per class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from masktool.contract import BINARY_KINDS, Metadata, OutputKind
from masktool.errors import MasktoolError
from masktool.messages import parameter

LEAST = 1e-45
"""The least positive float32; a probability of 0 counts as this."""
HALF_STEP = 2.0**-25
"""Largest 1 - p of a probability p that is 1 in float32."""


def drop_trailing_axes(output: np.ndarray) -> np.ndarray:
    """Returns a class output (N, K) or (N, K, 1, ...) as float32 (N, K); one column may also come as (N,).

    Raises:
        MasktoolError: the output has further axes, so that it is no class output.
    """
    if output.ndim == 1:
        output = output[:, None]
    if output.ndim < 2 or any(axis != 1 for axis in output.shape[2:]):
        raise MasktoolError("class output of the wrong shape", expected="(N, K)", got=output.shape)
    return output.reshape(output.shape[:2]).astype(np.float32, copy=False)


def to_probabilities(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns a class output (N, K) as probabilities, float32 (N, K), or (N, 2) for one column of two classes.

    Raises:
        MasktoolError: a binary output has more than one column.
    """
    if kind == "logits":
        return softmax(output)
    if kind in BINARY_KINDS:
        if output.shape[1] != 1:
            raise MasktoolError("binary output of the wrong shape", expected="(N, 1)", got=output.shape)
        negative, positive = (sigmoid(-output), sigmoid(output)) if kind == "binary" else (1 - output, output)
        return np.concatenate([negative, positive], axis=1)
    return output


def to_log_odds(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns log p - log(1 - p) of every class, float32 (N, K), without the rounding that ends p at 0 and 1.

    Of classes that exclude one another 1 - p is the others' sum, which is exact where p is 1. Of a sigmoid that the
    graph takes itself, p alone is known, and its log-odds end at about 17, where float32 rounds p to 1.

    Args:
        output: class output (N, K), as the model gives it.
        kind: kind of scores in the class output; None, for unknown, is an error.

    Raises:
        MasktoolError: the kind is not known, a binary output has more than one column, or there is no other class.
    """
    if kind is None:
        raise MasktoolError(
            "log-odds of scores of unknown kind",
            fix="export with " + parameter("output_kind") + " or " + parameter("labels"),
        )
    if kind in ("logits", "probabilities") and output.shape[1] == 1:
        raise MasktoolError("log-odds of one class alone", expected="at least 2 columns", got=1)
    values = output.astype(np.float64)
    if kind in ("sigmoid", "binary-probability"):
        odds = np.log(np.maximum(values, LEAST)) - np.log(np.maximum(1 - values, HALF_STEP))
    elif kind == "binary":
        odds = values
    else:
        odds = odds_against_others(values if kind == "logits" else np.log(np.maximum(values, LEAST)))
    if kind in BINARY_KINDS:
        to_probabilities(output, kind)  # refuses several columns
        odds = np.concatenate([-odds, odds], axis=1)
    return odds.astype(np.float32)


LOGIT_NAMES: dict[OutputKind, str] = {
    "logits": "logits",
    "probabilities": "log-probabilities",
    "sigmoid": "log-odds",
    "binary": "logits",
    "binary-probability": "log-probabilities",
}
"""What :func:`to_class_logits` gives of each kind of class output."""


def to_class_logits(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns numbers (N, K) float64 of which differences are those of the classes' logits, whatever the output holds.

    Of classes that exclude one another these are the logits, or the logarithms of probabilities, which lie below the
    logits by one number for each image; of independent classes the log-odds.

    Args:
        output: class output (N, K), as the model gives it.
        kind: kind of scores in the class output; None, for unknown, is an error.

    Raises:
        MasktoolError: the kind is not known, or a binary output has more than one column.
    """
    if kind is None:
        raise MasktoolError(
            "logits of scores of unknown kind",
            expected=" | ".join(LOGIT_NAMES),
            fix="export with " + parameter("output_kind"),
        )
    if kind == "logits":
        return output.astype(np.float64)
    if kind in BINARY_KINDS:
        to_probabilities(output, kind)  # refuses several columns
    values = output.astype(np.float64)
    if kind == "binary":
        return np.concatenate([np.zeros_like(values), values], axis=1)
    if kind == "sigmoid":
        return to_log_odds(output, kind).astype(np.float64)
    if kind == "binary-probability":
        values = np.concatenate([1 - values, values], axis=1)
    logarithms: np.ndarray = np.log(np.maximum(values, LEAST))
    return logarithms


def odds_against_others(logits: np.ndarray) -> np.ndarray:
    """Returns each logit minus the log-sum-exp of all others, (N, K) float64.

    The largest one's others are summed alone: as a difference they would be lost beside it.
    """
    top = logits.argmax(axis=1, keepdims=True)
    others = logits.copy()
    np.put_along_axis(others, top, -np.inf, axis=1)
    peak = np.take_along_axis(logits, top, axis=1)
    powers = np.exp(logits - peak)
    total = powers.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # the largest one's own difference is replaced below
        rest = np.log(total - powers) + peak
    second = others.max(axis=1, keepdims=True)
    alone = np.log(np.exp(others - second).sum(axis=1, keepdims=True)) + second
    np.put_along_axis(rest, top, alone, axis=1)
    return logits - rest


def note_unknown_scores(metadata: Metadata) -> Iterator[str]:
    """Yields notes for the reader of scores where the file does not say what kind of scores they are."""
    if metadata.class_output is None or metadata.output_kind is not None:
        return
    assumed = "" if metadata.labels else "; that they are class scores is assumed"
    settling = parameter("output_kind") + ", " + parameter("labels") + " or " + parameter("class_output")
    yield (
        f"what output {metadata.class_output!r} holds is not known, so that its values are taken as they are{assumed} "
        "(settled at export by " + settling + ")"
    )


def note_corrected_scores(metadata: Metadata) -> Iterator[str]:
    """Yields a note for the reader of scores that the file corrects where something is missing."""
    found = metadata.calibration
    if found is not None:
        yield (
            f"class scores are corrected where something is missing ({found['form']}, fitted on {found['n_images']} "
            "images); with nothing missing they are the network's own"
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of each row of (N, K), float32; the largest logit is subtracted first, against overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), float32, by the hyperbolic tangent, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))
