"""The correction of class scores where something is missing: A v + b, with v what a class output says of the classes.

What v is, the *space*, follows from the output. With z the logits, p the probabilities and K the number of classes:

=================  ==========================================  ===================================================
space              v                                           what the file gives where something is missing
=================  ==========================================  ===================================================
logits             z                                           A z + b
log-probabilities  log p, of a softmax that the graph takes    softmax(A log p + b), or its logarithm
log-odds           log p - log(1 - p), one for each class      sigmoid(A v + b); of a binary logit z: A z + b
=================  ==========================================  ===================================================

Sources: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2
(temperature, vector and matrix scaling), https://arxiv.org/abs/1706.04599; the same fitted behind masks: "MCal",
https://arxiv.org/abs/2603.04831.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from masktool.contract import BINARY_KINDS, OutputKind

Space = Literal["logits", "log-probabilities", "log-odds"]
Form = Literal["scale", "diagonal", "full"]
"""What A is: one number for all classes (and b = 0, as the order of classes stays), one for each class, or a matrix."""
LEAST = 1e-37
"""Probabilities below this count as this where their logarithm is taken: about the least that float32 holds in full."""
HALF_STEP = 2.0**-25
"""Largest 1 - p of a probability p that is 1 in float32."""
Floats: TypeAlias = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Correction:
    """A correction A v + b of class scores.

    Attributes:
        form: what A is.
        space: what v is.
        weight: A: a number (), one for each class (K,), or a matrix (K, K), float64.
        bias: b, (K,) float64.
    """

    form: Form
    space: Space
    weight: Floats
    bias: Floats

    def apply(self, values: Floats) -> Floats:
        """Returns A v + b of values (..., K)."""
        turned = values @ self.weight.T if self.form == "full" else values * self.weight
        return turned + self.bias

    def corrected_output(self, output: NDArray[np.floating], kind: OutputKind) -> Floats:
        """Returns what a file gives in place of a class output (N, K) where something is missing, as float64.

        Args:
            output: class output that is not corrected.
            kind: what the class output holds.
        """
        return as_output(self.apply(to_space(output, kind, self.space)), kind, self.space)


def to_space(output: NDArray[np.floating], kind: OutputKind, space: Space) -> Floats:
    """Returns the values v (..., K) of a class output (..., K), float64.

    Args:
        output: class output, as the model gives it.
        kind: what the class output holds.
        space: what v is.
    """
    values = np.asarray(output, np.float64)
    if space == "logits" or kind == "binary":
        return values
    if space == "log-probabilities":
        logs = values if kind == "logits" else np.log(np.maximum(values, LEAST))
        return np.maximum(logs, np.log(LEAST))
    return np.log(np.maximum(values, LEAST)) - np.log(np.maximum(1 - values, HALF_STEP))


def as_output(values: Floats, kind: OutputKind, space: Space) -> Floats:
    """Returns the class output (..., K) that says of the classes what values v (..., K) do."""
    if space == "logits" or kind == "binary":
        return values
    logs = log_shares(values, space)
    return logs if kind == "logits" else np.exp(logs)


def log_shares(values: Floats, space: Space) -> Floats:
    """Returns the logarithm of each class's probability, (..., K): of a softmax, or of log-odds of a sigmoid each."""
    if space == "log-odds":
        return -np.logaddexp(0.0, -values)
    below = values - values.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def divergence(whole: Floats, values: Floats, space: Space) -> Floats:
    """Returns KL(p || q) in nats, (...): p is what ``whole`` (..., K) says of the classes, q what ``values`` say.

    Of independent classes it is the sum over the classes.
    """
    logs = log_shares(whole, space)
    found = np.exp(logs) * (logs - log_shares(values, space))
    if space == "log-odds":
        absent = log_shares(-whole, space)
        found = found + np.exp(absent) * (absent - log_shares(-values, space))
    return found.sum(axis=-1)


def keeps_decision(whole: Floats, values: Floats, space: Space) -> Floats:
    """Returns whether the predicted class stays, (...), 1 or 0; of independent classes the share of those that stay."""
    if space == "log-odds":
        return ((whole > 0) == (values > 0)).mean(axis=-1, dtype=np.float64)
    return (whole.argmax(axis=-1) == values.argmax(axis=-1)).astype(np.float64)


def spaces_of(kind: OutputKind) -> tuple[Space, ...]:
    """Returns the spaces in which a class output may be corrected."""
    if kind == "sigmoid" or kind in BINARY_KINDS:
        return ("log-odds",)
    return ("log-probabilities",) if kind == "probabilities" else ("logits", "log-probabilities")
