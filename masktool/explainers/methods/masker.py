"""Masking model: the mask that a network, trained once on top of the classifier, gives with the classes' scores.

Source: Jason Phang, Jungkyu Park and Krzysztof J. Geras, "Investigating and Simplifying Masking-based Saliency Methods
for Model Interpretability", 2020, https://arxiv.org/abs/2010.09750.

    m = masker(activations of the classifier on x),  in [0, 1],  1 = salient

The masker has learned which pixels the classifier needs (it keeps the class under x m) and which it cannot do without
(it loses the class under x (1 - m)). The file that ``masktool train-masker`` writes holds both networks, and the masker
reads the classifier's own activations: scores and map come from one forward pass. The map is of the class that the
classifier predicts; a masking model takes no target.

``judge`` measures what the map promises, through the file's own mask input and in two more passes: whether the class is
kept under the mask cut at .5 (``kept_cut``), and lost under what the mask leaves (``lost_out``). Under ``fill`` masking
the colour that hides pixels takes part in both answers; a file with ``layer`` masking has no such colour. Where the
masker is in a file of the one kind, a file of the other, of the same classifier, judges it as well::

    found = masktool.explain("masker.onnx", "photo.jpg", method="masker")
    kept = (found.model_attributions >= 0.5).astype("float32")[None, None]
    with masktool.load("layer.onnx") as layer:
        image = masktool.runtime.prepare(found.image, layer.metadata.preprocessing).array
        masked_in, masked_out = layer.scores(image, kept)[0], layer.scores(image, 1 - kept)[0]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.contract import SALIENCY_MAP
from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Masks
from masktool.explainers.mask_figures import SURVIVES, areas_of, cut_masks, describe_answer, loses_class
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.task import Task
from masktool.messages import Placeholder, call
from masktool.option_checks import check_choice


@register
@dataclasses.dataclass(frozen=True)
class Masker(Method):
    """How salient each pixel is, as a masking model has learned it.

    Attributes:
        judge: whether to run the model on the picture under the mask and under what the mask leaves, and to report
            whether the class is kept and lost.
    """

    name: ClassVar[str] = "masker"
    title: ClassVar[str] = "Masking model"
    meaning: ClassVar[str] = "salient for the predicted class (1) or not (0)"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = None
    takes_no_target: ClassVar[bool] = True
    outputs: ClassVar[Mapping[str, str]] = {
        SALIENCY_MAP: call("train_masker", Placeholder("MODEL"), Placeholder("FOLDER"), "masker.onnx")
    }

    judge: bool = False

    def __post_init__(self) -> None:
        check_choice("judge", self.judge, (True, False))

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the pass that gives scores and map, and two more where the mask is judged."""
        return 3 if self.judge else 1

    def attribute(self, task: Task) -> Attribution:
        """Returns the map that came with the scores; every target gets the same map."""
        mask = check_map(task.outputs[SALIENCY_MAP], task.image_size)
        predicted = int(task.scores.argmax())
        quality = describe_answer(task.scores, task.scores[predicted], "") | areas_of(mask)
        if self.judge:
            quality |= judge_mask(task, cut_masks(mask[None]), predicted)
        common = warn(quality)
        other = (f"the map is of class {predicted}, which the model predicts: a masking model takes no target",)
        return Attribution(
            np.broadcast_to(mask, (len(task.targets), *task.image_size)),
            dataclasses.asdict(self),
            quality=(quality,) * len(task.targets),
            notes=tuple(common if target.index == predicted else other + common for target in task.targets),
        )


def check_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns a saliency map (1, h, w), or raises a MasktoolError where it does not fit an input of (height, width)."""
    low, high = (values.min(), values.max()) if values.size else (np.nan, np.nan)
    if values.shape == (1, *size) and low >= 0 and high <= 1:  # a NaN fails both comparisons
        return values
    raise MasktoolError(
        "not a saliency map",
        where=f"output {SALIENCY_MAP!r}",
        expected=f"(1, {size[0]}, {size[1]}) within 0 to 1",
        got=f"{values.shape} from {low:.3g} to {high:.3g}",
    )


def judge_mask(task: Task, kept: Masks, predicted: int) -> dict[str, float]:
    """Returns the predicted class's figures under a mask (1, 1, h, w), and under what the mask leaves."""
    under, out = task.predict(kept)[0], task.predict(1 - kept)[0]
    masked_in = describe_answer(under, under[predicted], "_cut")
    masked_out = describe_answer(out, out[predicted], "_out")
    return {
        **masked_in,
        **masked_out,
        "kept_cut": masked_in["class_cut"] == predicted,
        "lost_out": masked_out["class_out"] != predicted,
    }


def warn(figure: dict[str, float]) -> tuple[str, ...]:
    """Returns notes that the reader of a mask must know, from its figures."""
    notes = []
    if figure["area_cut"] in (0, 1):
        notes.append(f"the mask cut at .5 keeps {'everything' if figure['area_cut'] else 'nothing'}")
    if not figure.get("kept_cut", True):
        notes.append(loses_class(figure))
    if not figure.get("lost_out", True):
        notes.append(SURVIVES)
    return tuple(notes)
