"""From what a model puts out to one probability per class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from masktool.contract import BINARY_KINDS, Metadata, OutputKind
from masktool.errors import MasktoolError


def drop_trailing_axes(output: np.ndarray) -> np.ndarray:
    """Returns a class output (N, K) or (N, K, 1, ...) as float32 (N, K); one column may also come as (N,).

    Raises:
        MasktoolError: it has further axes, so that it is no class output.
    """
    if output.ndim == 1:
        output = output[:, None]
    if output.ndim < 2 or any(axis != 1 for axis in output.shape[2:]):
        raise MasktoolError("class output of the wrong shape", expected="(N, K)", got=output.shape)
    return output.reshape(output.shape[:2]).astype(np.float32, copy=False)


def to_probabilities(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns a class output (N, K) as probabilities, float32 (N, K), or (N, 2) for one column of two classes.

    Raises:
        MasktoolError: a binary output with more than one column.
    """
    if kind == "logits":
        return softmax(output)
    if kind in BINARY_KINDS:
        if output.shape[1] != 1:
            raise MasktoolError("binary output of the wrong shape", expected="(N, 1)", got=output.shape)
        negative, positive = (sigmoid(-output), sigmoid(output)) if kind == "binary" else (1 - output, output)
        return np.concatenate([negative, positive], axis=1)
    return output


def note_unknown_scores(metadata: Metadata) -> Iterator[str]:
    """Yields what the reader of scores must know where the file does not say what they are."""
    if metadata.class_output is None or metadata.output_kind is not None:
        return
    assumed = "" if metadata.labels else "; that they are class scores is assumed"
    yield (
        f"what output {metadata.class_output!r} holds is not known, so that its values are taken as they are{assumed} "
        "(settled at export by --output-kind, --labels or --class-output)"
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of each row of (N, K), float32; the largest logit goes off first against overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), float32, by the hyperbolic tangent, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))
