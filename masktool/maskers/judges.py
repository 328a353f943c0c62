"""Judges: the classifier's answers on masked images, differentiable with respect to the mask.

There are two: :class:`FillJudge` hides pixels behind an infiller's and runs torch; :class:`LayerJudge` runs exported,
layer-masked files, whose own gradients go back into torch, so that no mask rule is written a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from masktool.contract import Loss
from masktool.explainers.mask_figures import CUT, LEAK, leaking_masks
from masktool.maskers.infillers import infill
from masktool.maskers.settings import Infiller
from masktool.runtime.session import MaskedSession


class Judged(NamedTuple):
    """A judge's answer: the objective (N,), differentiable with respect to the masks; the scores (N, K), detached."""

    objective: Tensor
    scores: Tensor


class Judge(Protocol):
    """A function from masked images to the classifier's answer on them."""

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Returns the classifier's answer on images under masks.

        Args:
            images: images (N, C, H, W) float32, normalised.
            masks: masks (N, 1, H, W) float32 in [0, 1], 1 = kept.
            labels: indices of the images' classes, (N,) int64.
            loss: objective: ``log-softmax`` of the label, or ``entropy`` over all classes, both in nats.
        """


@dataclasses.dataclass(frozen=True)
class FillJudge:
    """The answer on x m + infill(x) (1 - m), of images x and masks m.

    Attributes:
        classify: function from images (N, C, H, W) to logits (N, K).
        infiller: name of the pixels that stand where pixels are hidden, as for
            :func:`masktool.maskers.infillers.infill`.
    """

    classify: Callable[[Tensor], Tensor]
    infiller: Infiller = "none"

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Returns the answer on images under masks, as :class:`Judge` says."""
        return judge_logits(self.classify(hide(images, masks, self.infiller)).float(), labels, loss)


def judge_logits(logits: Tensor, labels: Tensor, loss: Loss) -> Judged:
    """Returns the objective and the scores of logits (N, K); the objective is differentiable where the logits are."""
    logarithms = logits.log_softmax(1)
    if loss == "entropy":
        return Judged(-(logarithms.exp() * logarithms).sum(1), logits.detach())
    return Judged(logarithms.gather(1, labels[:, None])[:, 0], logits.detach())


def hide(images: Tensor, masks: Tensor, infiller: Infiller) -> Tensor:
    """Returns images (N, C, H, W) in which an infiller's pixels hide whatever masks (N, 1, H, W) do not keep."""
    if infiller == "none":
        return images * masks
    return images * masks + infill(images, infiller) * (1 - masks)


@dataclasses.dataclass(frozen=True)
class LayerJudge:
    """The answer through layer masking, under the mask cut at .5; its gradient is that of a mask that leaks.

    The answer is that of pixels that are there or not. Its gradient cannot be taken there: nothing that a missing pixel
    holds reaches the answer, so that no derivative says which of them to bring back, and masks trained by it became the
    inverse of the object. Nor can the soft mask's stand for it: layer masking weighs soft values, so that an even .4
    hides nothing, and the loss under the cut mask grew in training. A cut mask of .02 and .98 in place of 0 and 1 is
    near the one and has the other's derivatives, and the loss falls; with .1 masks shrink until the class is lost. (The
    cut passes gradients straight through.)

    Attributes:
        forward: session of a layer-masked file of the classifier.
        backward: session of a layer-masked file with gradients, of the same classifier.
    """

    forward: MaskedSession
    backward: MaskedSession

    def __call__(self, images: Tensor, masks: Tensor, labels: Tensor, loss: Loss) -> Judged:
        """Returns the answer on images under masks, as :class:`Judge` says."""
        cut = (masks.detach() >= CUT).float()
        logits = torch.from_numpy(self.forward(to_numpy(images), to_numpy(cut))).to(masks)
        found = judge_logits(logits, labels, loss)
        return found._replace(objective=SessionGradient.apply(masks, found.objective, images, labels, self, loss))


class SessionGradient(torch.autograd.Function):
    """Passes an objective (N,) on, and passes its gradient from ``session.gradient`` back to the masks."""

    @staticmethod
    def forward(
        context: Any, masks: Tensor, objective: Tensor, images: Tensor, labels: Tensor, judge: LayerJudge, loss: Loss
    ) -> Tensor:
        """Returns the objective unchanged."""
        context.save_for_backward(masks, images, labels)
        context.judge, context.loss = judge, loss
        return objective.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the masks' gradient: the file's own, from one run, times the gradient of each image's objective."""
        masks, images, labels = context.saved_tensors
        leaking = leaking_masks(to_numpy(masks), LEAK)
        found = context.judge.backward.gradient(
            to_numpy(images), leaking, target=to_numpy(labels), loss=context.loss, of=("mask",)
        )
        gradient = torch.from_numpy(found.mask).to(masks)
        return gradients[0][:, None, None, None] * gradient, None, None, None, None, None


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Returns a tensor's numbers as ONNX Runtime takes them."""
    return tensor.detach().cpu().contiguous().numpy()
