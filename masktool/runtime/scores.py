"""From what a model puts out to one probability per class."""

from __future__ import annotations

import numpy as np

from masktool.contract import OutputKind
from masktool.errors import MasktoolError


def drop_trailing_axes(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns a class output (N, K) or (N, K, 1, ...) as float32 (N, K); one binary logit may also come as (N,).

    Raises:
        MasktoolError: it has further axes, so that it is no class output.
    """
    if output.ndim == 1 and kind == "binary":
        output = output[:, None]
    if output.ndim < 2 or any(axis != 1 for axis in output.shape[2:]):
        raise MasktoolError("class output of the wrong shape", expected="(N, K)", got=output.shape)
    return output.reshape(output.shape[:2]).astype(np.float32, copy=False)


def to_probabilities(output: np.ndarray, kind: OutputKind | None) -> np.ndarray:
    """Returns a class output (N, K) as probabilities, float32 (N, K), or (N, 2) for one binary logit.

    Raises:
        MasktoolError: a binary output with more than one column.
    """
    if kind == "logits":
        return softmax(output)
    if kind == "binary":
        if output.shape[1] != 1:
            raise MasktoolError("binary output of the wrong shape", expected="(N, 1)", got=output.shape)
        return np.concatenate([sigmoid(-output), sigmoid(output)], axis=1)
    return output


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of each row of (N, K), float32; the largest logit goes off first against overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), float32, by the hyperbolic tangent, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))
