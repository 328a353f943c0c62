"""The task of a method of explanation: one image, the targets, and functions that run the model on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import Loss, Masking, Size
from masktool.errors import MasktoolError
from masktool.explainers.bands.groups import HiddenBands
from masktool.explainers.mask_design import MaskBatch, MaskDesign, Masks
from masktool.explainers.stopping import Stopping
from masktool.explainers.subject import Subject
from masktool.explainers.target import SettledTarget
from masktool.explainers.target_gradient import GradientRequest, count_gradients, differentiate_targets
from masktool.progress import Counting
from masktool.runtime.gradients import IMAGE, Gradient
from masktool.runtime.inputs import Inputs
from masktool.runtime.preprocessing import PreparedImage
from masktool.runtime.session import MaskedSession


class ScoredMasks(NamedTuple):
    """One forward pass: the masks, in memory or on the device, and the targets' scores under them (M, T) float64."""

    masks: MaskBatch
    scores: NDArray[np.float64]


class Evaluate(Protocol):
    """Runs the model on one image under many masks, batch by batch, as the masks are made."""

    def __call__(self, batches: Iterable[Any], total: int, design: MaskDesign | None = None) -> Iterator[ScoredMasks]:
        """Yields each batch of masks with its scores; a batch may be used until the next one is asked for.

        Args:
            batches: the masks (M, 1, h, w), one forward pass each, read as they are needed; with a design, their rows.
            total: the number of masks in all batches.
            design: how masks are made of rows, which a device then does itself; None where masks are given.
        """


Predict = Callable[[Masks], NDArray[np.float32]]
"""Runs the model on one image under masks (M, 1, h, w) in one pass, and returns the classes' scores (M, K)."""


class LineGradients(Protocol):
    """Adds up the gradients of one target at places on the straight way from a baseline to an image, in one pass."""

    def __call__(self, places: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the weighted sum, of the image's shape without the axis of the batch.

        Args:
            places: the places (m,): 0 is the baseline, 1 the image.
            weights: the weight (m,) of each.
        """


@dataclasses.dataclass(frozen=True)
class Differentiable:
    """The model of a task, for methods that ask for gradients.

    Attributes:
        session: a session whose file holds gradients.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        counting: function that starts to count up to a number of steps, to show progress.
    """

    session: MaskedSession
    inputs: Inputs
    counting: Counting

    def gradient(
        self,
        images: NDArray[np.float32],
        target: npt.ArrayLike | SettledTarget,
        *,
        loss: Loss = "logit",
        of: Sequence[str] = (IMAGE,),
    ) -> Gradient:
        """Returns the gradients of one batch by :meth:`masktool.runtime.session.MaskedSession.gradient`.

        Args:
            images: the images, (N, ...).
            target: the target, in as many passes as :func:`masktool.explainers.target_gradient.count_gradients` says;
                or the index of one class, or one for each image.
            loss: the form of a class's score.
            of: the names of the values to differentiate with respect to.

        Raises:
            MasktoolError: the objective, a gradient or the feature map's gradient is not finite.
        """
        request = GradientRequest(self.session, self.inputs, loss, of)
        if isinstance(target, SettledTarget):
            found = differentiate_targets(request, images, None, [target] * len(images))
        else:
            found = request.run(images, None, target)
        check_finite_gradients(
            objective=found.objective,
            image=found.image,
            mask=found.mask,
            gradient_feature_map=found.gradient_feature_map,
        )
        for name, gradient in zip(self.session.metadata.feature_maps, found.gradient_feature_maps, strict=False):
            check_finite_gradients(**{f"feature map {name}": gradient})
        return found

    def open_line(
        self, image: NDArray[np.float32], baseline: NDArray[np.float32], target: SettledTarget
    ) -> LineGradients:
        """Returns the function that adds up gradients at places on the straight way from a baseline to an image."""
        change = image - baseline

        def add_up(places: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
            found = self.gradient(baseline + places.reshape(-1, *[1] * (image.ndim - 1)) * change, target)
            assert found.image is not None
            weighted = found.image * weights.reshape(-1, *[1] * (image.ndim - 1))
            return np.asarray(weighted.sum(axis=0, dtype=np.float64))

        return add_up


def check_finite_gradients(**found: NDArray[np.floating[Any]] | None) -> None:
    """Raises a MasktoolError where a gradient is not finite: a map made from NaN would be NaN everywhere."""
    for name, values in found.items():
        if values is not None and not np.isfinite(values).all():
            raise MasktoolError("the gradients are not finite", where=name, expected="numbers", got="NaN or infinity")


@dataclasses.dataclass(frozen=True)
class TaskHead:
    """The layers behind a feature map of the task's image, for methods that hide places of it.

    Attributes:
        feature_map: the name of the feature map.
        places: (height, width) of the feature map.
        perturbations_per_eval: the number of masks in one pass of these layers.
        evaluate: function that makes masks (M, 1, h, w) at the feature map batch by batch, runs the layers behind it
            under them and yields the targets' scores.
    """

    feature_map: str
    places: tuple[int, int]
    perturbations_per_eval: int
    evaluate: Evaluate


@dataclasses.dataclass(frozen=True)
class Task:
    """One image, the targets to explain, and the functions that a method may call.

    Attributes:
        subject: the image, prepared for the model.
        scores: the scores (K,) float32 of all classes with nothing missing; none where no class is explained.
        targets: the T targets.
        base: the number that each target makes of the image with nothing missing, (T,) float64.
        masking: the model's masking mode.
        seed: the seed of every random choice.
        perturbations_per_eval: the number of masks in one forward pass.
        evaluate: function that makes masks batch by batch, runs the model under them and yields the targets' scores.
        predict: function that runs the model under masks (M, 1, h, w) in one pass and returns the classes' scores
            (M, K).
        outputs: the outputs that the method names in ``outputs``, (...) float32 of the image each, from the pass that
            gave ``scores``.
        stopping: when a method that draws samples stops.
        batch_measured: whether ``perturbations_per_eval`` was measured to be the fastest.
        differentiable: the model with its gradients for a method with ``needs_gradient``; None for any other.
        head: the layers behind a feature map for a method with ``needs_head``; None for any other.
        hidden_bands: the bands of which masks hide places, all others being kept; None where they hide all bands.
        feature_maps: the activations (c, h, w) float32 of every feature map that the file gives, by name, the first one
            first, for a method with ``needs_feature_map``; empty for any other.
    """

    subject: Subject
    scores: NDArray[np.float32]
    targets: tuple[SettledTarget, ...]
    base: NDArray[np.float64]
    masking: Masking
    seed: int
    perturbations_per_eval: int
    evaluate: Evaluate
    predict: Predict
    outputs: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    differentiable: Differentiable | None = None
    stopping: Stopping = dataclasses.field(default_factory=Stopping)
    batch_measured: bool = False
    head: TaskHead | None = None
    feature_maps: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    hidden_bands: HiddenBands | None = None

    @property
    def prepared(self) -> PreparedImage:
        """The model's input, and the way back to the pixels of the original image."""
        return self.subject.prepared

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The model's input as a picture, (h, w, 3) uint8 RGB."""
        return self.subject.pixels

    @property
    def size(self) -> Size:
        """(height, width) of the model's input in pixels, or what its axes of places are."""
        return self.prepared.size

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's input, for methods of images alone."""
        height, width = self.prepared.size
        return height, width

    @property
    def gradient_passes(self) -> int:
        """The number of passes that one gradient of each target takes, for methods that ask for gradients."""
        assert self.differentiable is not None
        return count_gradients(self.targets, self.differentiable.session)

    def batch_ranges(self, total: int) -> Iterator[range]:
        """Yields the ranges that cut 0..total into pieces of one forward pass each."""
        for start in range(0, total, self.perturbations_per_eval):
            yield range(start, min(start + self.perturbations_per_eval, total))
