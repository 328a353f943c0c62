"""What a method of explanation is given: one photograph, the targets, and ways to ask the model about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import Loss, Masking
from masktool.errors import MasktoolError
from masktool.explainers.subject import Subject
from masktool.progress import Counting
from masktool.runtime.gradients import IMAGE, Gradient
from masktool.runtime.inputs import Inputs
from masktool.runtime.preprocessing import PreparedImage
from masktool.runtime.session import MaskedSession

Masks = NDArray[np.float32]
"""(M, 1, h, w), 1 = kept, 0 = missing."""


class ScoredMasks(NamedTuple):
    """One forward pass: the masks (M, 1, h, w) float32 and the targets' scores under them (M, T) float64."""

    masks: Masks
    scores: NDArray[np.float64]


class Evaluate(Protocol):
    """Runs the model on one image under many masks, batch by batch, as the masks are generated."""

    def __call__(self, batches: Iterable[Masks], total: int) -> Iterator[ScoredMasks]:
        """Yields each batch with its scores; ``total`` is the number of masks in all batches."""


Predict = Callable[[Masks], NDArray[np.float32]]
"""Runs the model on one image under masks (M, 1, h, w) in one pass, and returns all scores (M, K)."""


@dataclasses.dataclass(frozen=True)
class Differentiable:
    """The model of a task, for methods that ask for gradients.

    Attributes:
        session: whose file holds gradients.
        inputs: what the model asks for besides the image and the mask.
        counting: shows progress.
    """

    session: MaskedSession
    inputs: Inputs
    counting: Counting

    def gradient(
        self,
        images: npt.ArrayLike,
        target: npt.ArrayLike,
        masks: npt.ArrayLike | None = None,
        *,
        loss: Loss = "logit",
        of: Sequence[str] = (IMAGE,),
    ) -> Gradient:
        """Runs one batch through :meth:`masktool.runtime.session.MaskedSession.gradient`, in one piece.

        Raises:
            MasktoolError: what is differentiated, or a gradient, is not finite.
        """
        found = self.session.gradient(images, masks, self.inputs, target=target, loss=loss, of=of)
        check_finite_gradient(found)
        return found


def check_finite_gradient(found: Gradient) -> None:
    """Raises a MasktoolError where numbers are not finite: a map made from NaN would be NaN everywhere."""
    for name in ("objective", "image", "mask", "gradient_feature_map"):
        values = getattr(found, name)
        if values is not None and not np.isfinite(values).all():
            raise MasktoolError("the gradients are not finite", where=name, expected="numbers", got="NaN or infinity")


@dataclasses.dataclass(frozen=True)
class Task:
    """One photograph and the classes to explain: all that a method may ask about.

    Attributes:
        subject: the photograph, prepared for the model.
        scores: (K,) float32, of all classes, or one output's values laid out flat, with nothing missing.
        targets: where each of the T targets stands among the scores.
        given: of each, whether the user named it; otherwise it is the one with the highest score.
        masking: the model's masking mode.
        seed: of every random choice.
        perturbations_per_eval: how many masks go into one forward pass.
        evaluate: runs the model under masks, for the targets' scores.
        predict: likewise, for all scores.
        outputs: (...) float32 of the one image, from the pass that gave ``scores``: those in the method's ``outputs``.
        differentiable: what a method with ``needs_gradient`` asks for gradients; None for any other.
    """

    subject: Subject
    scores: NDArray[np.float32]
    targets: tuple[int, ...]
    given: tuple[bool, ...]
    masking: Masking
    seed: int
    perturbations_per_eval: int
    evaluate: Evaluate
    predict: Predict
    outputs: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    differentiable: Differentiable | None = None

    @property
    def base(self) -> NDArray[np.float64]:
        """The score (T,) of each target with nothing missing."""
        return self.scores[list(self.targets)].astype(np.float64)

    @property
    def prepared(self) -> PreparedImage:
        """The photograph as the model's input, and the way back to its own pixels."""
        return self.subject.prepared

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB, the model's input as it looks."""
        return self.subject.pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return self.prepared.size

    def batch_ranges(self, total: int) -> Iterator[range]:
        """Yields 0..total in pieces of one forward pass each."""
        for start in range(0, total, self.perturbations_per_eval):
            yield range(start, min(start + self.perturbations_per_eval, total))
