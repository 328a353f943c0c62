"""How a learned mask is applied to the network, and how the gradient with respect to the mask is found.

* ``fill``: x̃ = x·m + b·(1 − m) is made outside the network, so every file with gradients will do;
  ∂/∂m = Σ_c ∂/∂x̃ · (x − b).
* ``layer``: through the file's own mask input. What layer masking does hardly depends on the scale of a soft mask,
  which could therefore cheat; so the network sees the mask cut at .5, and the gradient with respect to the cut mask is
  passed on as if it were that with respect to the soft one (straight-through: Bengio, Léonard and Courville,
  "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013, section 4,
  https://arxiv.org/abs/1308.3432). Nothing of a missing pixel reaches the scores, so that no derivative says whether to
  bring it back: what the network sees leaks, by a little for 0 and 1 less that for 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Loss, Masking
from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Masks
from masktool.explainers.mask_figures import LEAK, leaking_masks
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import SettledTarget
from masktool.explainers.target_gradient import GradientRequest, differentiate_targets
from masktool.explainers.task import Differentiable
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES
from masktool.messages import parameter

Through = Literal["fill", "layer"]
THROUGH: tuple[Through, ...] = get_args(Through)


class Answer(NamedTuple):
    """The objective (n,) float32 of masked images, and its gradient with respect to the masks (n, 1, h, w)."""

    objective: NDArray[np.float32]
    gradient: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class HiddenParts:
    """Images, the target in each, and the fill for the pixels that a mask hides.

    Attributes:
        model: the model that gives scores and gradients.
        images: the images, (B, C, h, w) or (B, h, w, C) float32, as the model takes them.
        targets: the target in each image, (B,).
        fill: the values of missing pixels, of the shape of ``images``; None masks through the file's mask input.
        batch: the number of images in one pass.
        leak: the value of missing pixels, and 1 minus that of kept ones, in what the network sees of a cut mask.
    """

    model: Differentiable
    images: NDArray[np.float32]
    targets: Sequence[SettledTarget]
    fill: NDArray[np.float32] | None
    batch: int
    leak: float = LEAK

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        height, width = SPATIAL_AXES[self.model.session.layout]
        return self.images.shape[height], self.images.shape[width]

    def differentiate(self, masks: Masks, positions: NDArray[np.intp], loss: Loss) -> Answer:
        """Returns the targets' scores under soft masks, and their gradients with respect to the masks.

        Args:
            masks: the masks, (n, 1, h, w) float32, 1 = kept, 0 = missing.
            positions: the positions (n,) in ``images`` of the images to mask.
            loss: the objective: the target's ``logit``, ``log-softmax`` or ``softmax``, or ``entropy``; in a file whose
                gradients are of an output, the target's number as it is.
        """
        answers = [self.ask(masks[part], positions[part], loss) for part in self.parts(len(masks))]
        return Answer(*(np.concatenate(each) for each in zip(*answers, strict=True)))

    def ask(self, masks: Masks, positions: NDArray[np.intp], loss: Loss) -> Answer:
        """Returns the scores and gradients of :meth:`differentiate` in one pass."""
        images, targets = self.images[positions], [self.targets[position] for position in positions]
        session = self.model.session
        request = GradientRequest(session, self.model.inputs, loss, ("mask" if self.fill is None else "image",))
        if self.fill is None:
            seen = leaking_masks(masks, self.leak)
            found = differentiate_targets(request, images, seen, targets)
            assert found.mask is not None
            return Answer(found.objective, found.mask)
        fill = self.fill[positions]
        blended = fill_missing(images, fill, self.like_images(masks))
        found = differentiate_targets(request, blended, None, targets)
        assert found.image is not None
        return Answer(found.objective, (found.image * (images - fill)).sum(axis=CHANNEL_AXIS[session.layout])[:, None])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that tell of the targets, and of the class output where there is one."""
        of_classes = self.model.session.metadata.class_output
        names = [of_classes, *(name for target in self.targets for name in target.outputs)]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def has_classes(self) -> bool:
        """Whether the model has a class output."""
        return self.model.session.metadata.class_output is not None

    def predict(self, masks: Masks | None = None) -> dict[str, NDArray[Any]]:
        """Returns the outputs (B, ...) of the images under masks (B, 1, h, w), not cut, by name; None masks nothing."""
        found = []
        for part in self.parts(len(self.images)):
            images, kept = self.images[part], None if masks is None else masks[part]
            if kept is not None and self.fill is not None:
                images, kept = fill_missing(images, self.fill[part], self.like_images(kept)), None
            found.append(self.model.session.run(images, kept, self.model.inputs, self.outputs))
        return {name: np.concatenate([each[name] for each in found]) for name in self.outputs}

    def outputs_of(self, found: Mapping[str, NDArray[Any]], position: int) -> ModelOutputs:
        """Returns what :meth:`predict` gave for one of the images, as outputs of the model."""
        values = {name: each[position : position + 1] for name, each in found.items()}
        return ModelOutputs(self.model.session.metadata, values)

    def parts(self, total: int) -> Iterator[slice]:
        """Yields slices that cut ``total`` images into passes of at most ``batch`` images."""
        for start in range(0, total, self.batch):
            yield slice(start, start + self.batch)

    def like_images(self, masks: Masks) -> Masks:
        """Returns masks (n, 1, h, w) with their axes in the order of the images' axes."""
        return masks if self.model.session.layout == "NCHW" else masks.transpose(0, 2, 3, 1)


def fill_missing(
    images: NDArray[np.float32], fill: NDArray[np.float32], masks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns x·m + b·(1 − m), the images x with the fill b where the masks m are 0."""
    return fill + masks * (images - fill)


def check_through(through: Through, masking: Masking) -> None:
    """Raises a MasktoolError where masks are to go through the layers but the file masks its input only."""
    if through == "layer" and masking == "fill":
        raise MasktoolError(
            "the file masks its input only",
            where="through=layer",
            expected="a file with layer masking",
            got=parameter("masking", "fill"),
            fix="export with " + parameter("masking", "layer") + ", or set through=fill",
        )
