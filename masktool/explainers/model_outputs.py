"""What a model gave for some images: its outputs by name, and what they say of its classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.runtime.preprocessing import PreparedImage
from masktool.runtime.scores import drop_trailing_axes, to_class_logits, to_log_odds, to_probabilities

Scale = Literal["probability", "log-odds"]
"""Scale of the classes' scores: probabilities p (or the class output unchanged, where its kind is unknown), or the
log-odds log p - log(1 - p)."""


@dataclasses.dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a model for M images, and the classes' scores that are made of them when they are first asked for.

    Attributes:
        metadata: what the file says about itself.
        values: the outputs by name, (M, ...) each, as the model gives them.
        scale: the scale of the classes' scores.
        prepared: the image that they are of, with the way back to the picture's pixels; None where that is not known.
    """

    metadata: Metadata
    values: Mapping[str, NDArray[Any]]
    scale: Scale = "probability"
    prepared: PreparedImage | None = None

    @functools.cached_property
    def class_scores(self) -> NDArray[np.float32]:
        """The classes' scores, (M, K): probabilities where the kind tells, or log-odds."""
        values, kind = self.class_values, self.metadata.output_kind
        return to_log_odds(values, kind) if self.scale == "log-odds" else to_probabilities(values, kind)

    @functools.cached_property
    def class_logits(self) -> NDArray[np.float64]:
        """The classes' logits, (M, K): of classes that exclude one another up to one number for each image.

        Raises:
            MasktoolError: what the class output holds is not known.
        """
        return to_class_logits(self.class_values, self.metadata.output_kind)

    @property
    def class_values(self) -> NDArray[np.float32]:
        """The class output as the model gives it, (M, K)."""
        return drop_trailing_axes(self.values[str(self.metadata.class_output)])

    @property
    def score_name(self) -> str:
        """The word for a class's score: ``probability``, ``log-odds`` or ``score``."""
        if self.scale == "log-odds":
            return "log-odds"
        return "score" if self.metadata.output_kind is None else "probability"
