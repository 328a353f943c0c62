"""What the classifier says of masked pictures, differentiable with respect to the mask.

Two judges answer alike: :class:`FillJudge` hides pixels behind an infiller's and runs torch; :class:`LayerJudge` runs
exported, layer-masked files, whose own gradients go back into torch: no rule of masking stands twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from masktool.contract import Loss
from masktool.explainers.mask_figures import CUT
from masktool.maskers.infillers import infill
from masktool.maskers.settings import Infiller
from masktool.runtime.session import MaskedSession

LEAK = 0.02
"""What a missing pixel weighs, and a kept one lacks, where the gradient is taken. The less, the nearer to the cut mask:
with .1 the fill still sees an outline that the cut mask hides, and masks shrink until the class is lost."""


class Judged(NamedTuple):
    """An answer: the objective (N,), differentiable with respect to the masks, and the scores (N, K), which are not."""

    objective: Tensor
    scores: Tensor


class Judge(Protocol):
    """Says what the classifier makes of masked pictures."""

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Judges pictures.

        Args:
            images: (N, C, H, W) float32, normalised.
            masks: (N, 1, H, W) float32 in [0, 1], 1 = kept.
            labels: (N,) int64.
            loss: ``log-softmax`` of the label, or ``entropy`` over all classes, both in nats.
        """


@dataclasses.dataclass(frozen=True)
class FillJudge:
    """Judges x m + infill(x) (1 - m).

    Attributes:
        classify: from images (N, C, H, W) to logits (N, K).
        infiller: what stands where pixels are hidden.
    """

    classify: Callable[[Tensor], Tensor]
    infiller: Infiller = "none"

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Judges pictures."""
        return judge_logits(self.classify(hide(images, masks, self.infiller)).float(), labels, loss)


def judge_logits(logits: Tensor, labels: Tensor, loss: Loss) -> Judged:
    """Returns the answer that logits (N, K) are, differentiable where they are."""
    logarithms = logits.log_softmax(1)
    if loss == "entropy":
        return Judged(-(logarithms.exp() * logarithms).sum(1), logits.detach())
    return Judged(logarithms.gather(1, labels[:, None])[:, 0], logits.detach())


def hide(images: Tensor, masks: Tensor, infiller: Infiller) -> Tensor:
    """Returns pictures (N, C, H, W) with what masks (N, 1, H, W) do not keep hidden behind an infiller's pixels."""
    if infiller == "none":
        return images * masks
    return images * masks + infill(images, infiller) * (1 - masks)


@dataclasses.dataclass(frozen=True)
class LayerJudge:
    """Judges pictures through layer masking, under the mask cut at .5; its gradient is that of a mask that leaks.

    The answer is that of pixels that are there or not. Its gradient cannot be taken there: nothing that a missing pixel
    holds reaches the answer, so that no derivative says which of them to bring back, and masks trained by it became the
    inverse of the object. Nor can the soft mask's stand for it: layer masking weighs soft values, so that an even .4
    hides nothing, and the loss under the cut mask grew in training. A cut mask of .02 and .98 in place of 0 and 1 is
    near the one and has the other's derivatives, and the loss falls. (The cut passes gradients straight through.)

    Attributes:
        forward: of a layer-masked file.
        backward: of one with gradients, of the same classifier.
    """

    forward: MaskedSession
    backward: MaskedSession

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Judges pictures."""
        cut = (masks.detach() >= CUT).float()
        logits = torch.from_numpy(self.forward(to_numpy(images), to_numpy(cut))).to(masks)
        found = judge_logits(logits, labels, loss)
        return found._replace(objective=SessionGradient.apply(masks, found.objective, images, labels, self, loss))


class SessionGradient(torch.autograd.Function):
    """Passes an objective (N,) on, and back to the masks the gradient that ``session.gradient`` gives of it."""

    @staticmethod
    def forward(
        context: Any, masks: Tensor, objective: Tensor, images: Tensor, labels: Tensor, judge: LayerJudge, loss: Loss
    ) -> Tensor:
        """Returns the objective."""
        context.save_for_backward(masks, images, labels)
        context.judge, context.loss = judge, loss
        return objective.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Runs the file with gradients once, and scales each picture's by what its objective weighs."""
        masks, images, labels = context.saved_tensors
        leaking = torch.where(masks >= CUT, 1 - LEAK, LEAK)
        found = context.judge.backward.gradient(
            to_numpy(images), to_numpy(leaking), target=to_numpy(labels), loss=context.loss, of=("mask",)
        )
        gradient = torch.from_numpy(found.mask).to(masks)
        return gradients[0][:, None, None, None] * gradient, None, None, None, None, None


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Returns a tensor's numbers as ONNX Runtime takes them."""
    return tensor.detach().cpu().contiguous().numpy()
