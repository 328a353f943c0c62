"""Attribution mask: multiply the image by its own attributions, again and again, until only what counts is left.

Source: "Attribution Mask: Filtering Out Irrelevant Features By Recursively Focusing Attention on Inputs of DNNs", 2021,
https://arxiv.org/abs/2102.07332.

    M_0 = 1;   x_k = x M_k;   A_k = grad f_y(x_k) * sign(x_k);   M_{k+1} = M_k * minmax(A_k),   k = 0 .. T-1

f_y is the target's logit, and x the model's normalised input, so that what is masked becomes the data set's mean
colour. minmax brings A_k to [0, 1] over the pixels, for each image and channel. A is gradient times the sign of the
input (GxSI); the other rules put another attribution into the same recursion. The masks have the image's channels and
multiply the image itself: they do not go through the model's ``mask``.

The recursion is exact where the network has no implicit bias: no additive constant in any layer, so that f_y equals the
sum of gradient times input. ``quality`` reports the gap on the whole image, and a note warns where it is not 0.

The mask knows the class that it is built for. The paper's accuracies above 99 % build it for the true class, which they
need to know beforehand: so built, even a network at chance finds evidence for it. Here it is built for the class that
the model predicts, unless the user names one; a note says which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout, Metadata, OutputKind
from masktool.explainers.gradient_method import ClassMap, GradientMethod, channels_first
from masktool.explainers.method import register
from masktool.explainers.methods.integrated_gradients import step_rule
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target import SettledTarget
from masktool.explainers.task import Differentiable, Task
from masktool.layouts import SPATIAL_AXES
from masktool.option_checks import check_choice, check_count
from masktool.runtime.gradients import Gradient
from masktool.runtime.scores import to_probabilities

Rule = Literal["gxsi", "gradient", "input-x-gradient", "magnitude-x-input", "integrated-gradients"]
RULES: tuple[Rule, ...] = get_args(Rule)
Floats = NDArray[np.floating[Any]]

IMPLICIT_BIAS = 1e-3
"""Gap, as a share of the sum of |gradient times input|, from which a network has implicit bias. Without bias,
single precision leaves 1e-6 of a few million additions in a deep network; with biases, a tenth and more is usual."""


class MaskedStep(NamedTuple):
    """The image after k multiplications.

    Attributes:
        masks: the masks M_k in [0, 1], of the shape of the images.
        scores: the scores (N, K) of the images x_k, or the output (N, ...) that the target is of, as the model gives
            them.
        logits: the logits (N,) of the targets.
        gap: f_y - sum of gradient times input, (N,); None at the last step, which is not differentiated.
        magnitude: the sum of |gradient times input|, (N,); None at the last step.
    """

    masks: NDArray[np.float32]
    scores: NDArray[Any]
    logits: NDArray[np.float32]
    gap: NDArray[np.float64] | None
    magnitude: NDArray[np.float64] | None


@register
@dataclasses.dataclass(frozen=True)
class AttributionMask(GradientMethod):
    """Mean over the channels of the mask after T multiplications.

    Attributes:
        n_iterations: the number T of multiplications.
        rule: the attribution at each step: ``gxsi``, ``gradient``, ``input-x-gradient``, ``magnitude-x-input`` or
            ``integrated-gradients`` (from the data set's mean).
        n_steps: the number of gradients per integral, for ``integrated-gradients`` only.
    """

    name: ClassVar[str] = "attribution-mask"
    title: ClassVar[str] = "Attribution mask"
    meaning: ClassVar[str] = "share of the pixel that is kept"
    signed: ClassVar[bool] = False
    capped: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = None

    n_iterations: int = 3
    rule: Rule = "gxsi"
    n_steps: int = 20

    def __post_init__(self) -> None:
        check_count("n_iterations", self.n_iterations)
        check_choice("rule", self.rule, RULES)
        check_count("n_steps", self.n_steps)

    @property
    def passes_per_class(self) -> int:
        """A gradient for each multiplication, or an integral besides, and the image in the end."""
        of_rule = self.n_steps if self.rule == "integrated-gradients" else 0
        return self.n_iterations * (1 + of_rule) + 1

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the mean over the channels of the last mask for one target, with figures and notes."""
        target = task.targets[position]
        with model.counting(self.n_iterations) as advance:
            steps = mask_by_attributions(
                model, task.prepared.array, target, self.rule, self.n_iterations, self.n_steps, lambda: advance(1)
            )
        attributions = channels_first(steps[-1].masks, model)[0].mean(axis=0, dtype=np.float64)
        quality = describe_steps(steps, target, model.session.metadata)
        return ClassMap(attributions, quality, self.notes(steps[0], given=target.given))

    def notes(self, first: MaskedStep, *, given: bool) -> tuple[str, ...]:
        """Returns notes: which class the mask is built for, and a warning where the network has implicit bias."""
        assert first.gap is not None
        assert first.magnitude is not None
        chosen = (
            "the mask is built for the class that was given, not for the one that the model predicts by itself: it "
            "finds evidence for the class whether or not the class is right"
            if given
            else "the mask is built for the class that the model predicts"
        )
        if abs(first.gap[0]) <= IMPLICIT_BIAS * first.magnitude[0]:
            return (chosen,)
        return chosen, (
            f"the network has implicit bias: {first.gap[0]:.3g} of the logit {first.logits[0]:.3g} comes from "
            "additive constants, which no mask of the input reaches; attribution masks are made for networks without "
            "biases, and others lose the class quickly"
        )


def describe_steps(steps: list[MaskedStep], target: SettledTarget, metadata: Metadata) -> dict[str, float]:
    """Returns one image's completeness gap, and for each step the logit and whether the target is the top class.

    Args:
        steps: the images after 0 to T multiplications.
        target: the target that the mask is built for; where it is no class, that it still holds is what counts.
        metadata: what the file says about itself.

    Returns:
        Figures by name; ``kept_soft`` says whether the target is the top class after the last multiplication, and is
        left out, as those of the steps, where nothing tells.
    """
    first = steps[0]
    assert first.gap is not None
    quality = {"completeness_total": float(first.logits[0]), "completeness_gap": float(first.gap[0])}
    for index, step in enumerate(steps):
        quality[f"logit_{index}"] = float(step.logits[0])
        if (kept := is_kept(step.scores, target, metadata)) is not None:
            quality[f"top_class_{index}"] = quality["kept_soft"] = float(kept)
    return quality


def is_kept(scores: NDArray[Any], target: SettledTarget, metadata: Metadata) -> bool | None:
    """Tells whether the scores of an image, as the model gives them, still say what is explained.

    Args:
        scores: the scores (1, K), or the output (1, ...) that the target is of.
        target: the target.
        metadata: what the file says about itself.

    Returns:
        None where nothing tells.
    """
    if len(target.classes) == 1:
        return bool(top_classes(scores, metadata.output_kind)[0] == target.classes[0])
    of = metadata.gradient_output or str(metadata.class_output)
    held = target.holds(ModelOutputs(metadata, {of: scores}))
    return None if held is None else bool(held[0])


def top_classes(scores: NDArray[np.float32], kind: OutputKind | None = None) -> NDArray[np.intp]:
    """Returns the top class (N,) of scores (N, K) of a kind; one column of unknown kind is a binary logit against 0."""
    scores = to_probabilities(scores, kind)
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.intp)
    return scores.argmax(axis=1)


def mask_by_attributions(
    model: Differentiable,
    images: NDArray[np.float32],
    targets: NDArray[np.integer[Any]] | SettledTarget,
    rule: Rule = "gxsi",
    n_iterations: int = 3,
    n_steps: int = 20,
    advance: Callable[[], None] = lambda: None,
) -> list[MaskedStep]:
    """Multiplies images by masks made from their attributions.

    Args:
        model: the model that gives the gradients.
        images: the normalised images, (N, C, H, W) or (N, H, W, C) float32.
        targets: the class indices, (N,) or (1,); or one target for all images.
        rule: the attribution at each step.
        n_iterations: the number T of multiplications.
        n_steps: the number of gradients per integral, for ``integrated-gradients``.
        advance: function that is called after each multiplication.

    Returns:
        The images after 0 to T multiplications.
    """
    layout = model.session.layout
    masks = np.ones_like(images)
    steps = []
    for _ in range(n_iterations):
        masked = images * masks
        found = model.gradient(masked, targets)
        assert found.image is not None
        shares = (masked * found.image).reshape(len(images), -1).astype(np.float64)
        steps.append(
            MaskedStep(
                masks,
                scores_of_step(found),
                found.objective,
                found.objective - shares.sum(axis=1),
                np.abs(shares).sum(axis=1),
            )
        )
        gradients = integrate(model, masked, targets, n_steps) if rule == "integrated-gradients" else found.image
        masks = masks * normalise_range(attribute(rule, gradients, masked), layout)
        advance()
    last = model.gradient(images * masks, targets, of=())
    return [*steps, MaskedStep(masks, scores_of_step(last), last.objective, None, None)]


def scores_of_step(found: Gradient) -> NDArray[Any]:
    """Returns the scores that came with gradients, or the output that these are of."""
    scores = found.output if found.scores is None else found.scores
    assert scores is not None  # a file has gradients of one or the other
    return scores


def attribute(rule: Rule, gradients: Floats, images: NDArray[np.float32]) -> Floats:
    """Returns attributions of the shape of the images; ``integrated-gradients`` takes mean gradients along the way."""
    if rule == "gxsi":
        return gradients * np.sign(images)
    if rule == "gradient":
        return gradients
    if rule == "magnitude-x-input":
        return np.abs(gradients) * images
    return gradients * images


def integrate(
    model: Differentiable,
    images: NDArray[np.float32],
    targets: NDArray[np.integer[Any]] | SettledTarget,
    n_steps: int,
) -> Floats:
    """Returns the mean gradient on the straight way from 0, the data set's mean, to each image."""
    total = np.zeros(images.shape)
    for place, weight in zip(*step_rule("gauss-legendre", n_steps), strict=True):
        found = model.gradient(place * images, targets)
        assert found.image is not None
        total += weight * found.image
    return total


def normalise_range(attributions: Floats, layout: Layout) -> NDArray[np.float32]:
    """Brings each image and channel to [0, 1] over its pixels; a channel without differences becomes 1."""
    axes = SPATIAL_AXES[layout]
    low = attributions.min(axis=axes, keepdims=True)
    span = attributions.max(axis=axes, keepdims=True) - low
    shares = np.where(span > 0, (attributions - low) / np.where(span > 0, span, 1), 1)
    return shares.astype(np.float32)
