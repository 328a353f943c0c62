"""How far two files of one network agree: their scores, their first choices, and what matters in their maps.

The files are masked files, such as the one in float16 and the one in float32, or a quantised one and the network that
it was made from. The first of the images is explained by occlusion and RISE, and where both files hold gradients by
input times gradient and Grad-CAM, of the class or of the largest value of the output that they are of; the maps are
compared by Spearman's rank correlation. The methods run with few masks, the same in both files, so that an export stays
one of seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import DEFAULT_SIZE, Metadata, Size
from masktool.embedding.check import other_values, recorded_settings
from masktool.evaluation.metrics.map_similarity import rank_correlation
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import Method
from masktool.explainers.methods.grad_cam import GradCam
from masktool.explainers.methods.input_x_gradient import InputXGradient
from masktool.explainers.methods.occlusion import Occlusion
from masktool.explainers.methods.rise import Rise
from masktool.explainers.target import TOP
from masktool.explainers.targets.output_value import OutputValue
from masktool.exporters import export_source
from masktool.exporters.check import ExportCheck
from masktool.exporters.differences import relative_difference
from masktool.exporters.parity import Verdict
from masktool.exporters.sources import Source
from masktool.files import temporary_directory
from masktool.layouts import SPATIAL_AXES
from masktool.runtime.session import MaskedSession

WINDOWS = 4
"""Windows of occlusion along each side: 16 masks, whose drops 16 ranks tell apart."""
N_MASKS = 16
"""Masks of RISE: as many passes as occlusion takes."""


class Limits(NamedTuple):
    """What the figures of an agreement may be: the first two at most, a rank correlation at least."""

    scores: float
    lead_lost: float
    maps: float


LIMITS: Mapping[str, Limits] = {"fp16": Limits(5e-2, 1e-1, 0.9), "int8": Limits(3e-1, 6e-1, 0.7)}
"""By what a file computes in. Logits of 16 bits are off by up to a hundredth, as every figure of such files allows, and
a softmax turns an offset d of a large logit into a factor exp(d): five hundredths leave room for that. Integers of 8
bits have 256 steps, where float16 has 1,024 between a power of 2 and the next. A first choice may lose as much as two
scores may move towards each other; and where the order of what matters in a map is another by more than the last
figure, the file's maps are not those of the network."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far a file agrees with another one of the same network.

    Attributes:
        images: the number of images that were scored.
        scores: the largest difference of an output, relative to the largest number in that output.
        first_choice: the share of images on which both files choose the same class; None without a class output.
        lead_lost: the largest lead, relative to the largest score, of a first choice that the file does not share: 0
            where it shares all of them; None without a class output.
        maps: the rank correlation of the maps of each method, by its name; None where a map is the same everywhere.
    """

    images: int
    scores: float
    first_choice: float | None
    lead_lost: float | None
    maps: dict[str, float | None]


def compare_files(reference: Path, path: Path, images: NDArray[Any]) -> Agreement:
    """Returns how far a file agrees with another one of the same network, on images as the network takes them.

    Args:
        reference: the path of the file that counts as right.
        path: the path of the file that is judged.
        images: the images, (N, C, H, W) or (N, H, W, C).

    Raises:
        MasktoolError: a file does not run on the images.
    """
    with MaskedSession(reference, providers="cpu") as right, MaskedSession(path, providers="cpu") as judged:
        kind = judged.metadata.output_kind  # both are read alike, whatever was known of the other file's source
        right.metadata = dataclasses.replace(right.metadata, output_kind=kind)
        first, second = (session.run(images, inputs=other_values(session)) for session in (right, judged))
        pairs = zip(first.values(), second.values(), strict=True)
        numbers = [(expected, found) for expected, found in pairs if expected.dtype.kind == "f"]
        scores = relative_difference([found for _, found in numbers], [expected for expected, _ in numbers])
        outputs = right.metadata.class_output, judged.metadata.class_output
        first_choice = lead_lost = None
        if outputs[0] is not None and outputs[1] is not None:
            first_choice, lead_lost = compare_choices(rows(first[outputs[0]]), rows(second[outputs[1]]))
        maps = dict(compare_maps(right, judged, images[0]))
    return Agreement(len(images), scores, first_choice, lead_lost, maps)


def rows(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Returns scores (N, K) of an output with further axes of length 1, or without the last one."""
    return np.asarray(scores, np.float64).reshape(len(scores), -1)


def compare_choices(expected: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the share of rows whose largest score is of the same class, and the largest lead that another lost."""
    if expected.shape[1] == 1:  # one column tells two classes apart, by its sign or from 1/2 on
        return 1.0, 0.0
    each, choices = np.arange(len(expected)), found.argmax(1)
    leads = expected.max(1) - expected[each, choices]
    return float((choices == expected.argmax(1)).mean()), float(leads.max() / max(np.abs(expected).max(), 1e-30))


def compare_maps(
    right: MaskedSession, judged: MaskedSession, image: NDArray[Any]
) -> Iterator[tuple[str, float | None]]:
    """Yields the name of each method that both files allow, and the rank correlation of its maps of one image."""
    size = tuple(image.shape[axis - 1] for axis in SPATIAL_AXES[right.metadata.layout or "NCHW"])
    for method, output in list_compared_maps(size, [right.metadata, judged.metadata]):
        expected = explain_alone(right, image, method, None if output is None else OutputValue(output, TOP))
        target = expected.target if output is None else OutputValue(output, expected.target)
        found = explain_alone(judged, image, method, target)
        yield method.name, rank_correlation(*(each.model_attributions.astype(np.float64) for each in (expected, found)))


def list_compared_maps(size: Size, files: Sequence[Metadata]) -> Iterator[tuple[Method, str | None]]:
    """Yields the methods that files allow, with few masks, each with the output whose largest value it explains.

    Args:
        size: (height, width) of the image in pixels, or what its axes of places are.
        files: the metadata of the files.

    Yields:
        A method, and an output, or None for the class with the highest score.
    """
    by_class = all(metadata.class_output is not None for metadata in files)
    if by_class:
        window = [max(1, side // WINDOWS) for side in size]
        yield Occlusion(sliding_window_shapes=window, strides=window), None
        yield Rise(n_masks=N_MASKS, estimator="mean"), None
    output = files[0].gradient_output
    of_classes = by_class and all(metadata.gradient is not None for metadata in files)
    of_output = output is not None and all(metadata.gradient_output == output for metadata in files)
    if not (of_classes or of_output):
        return
    yield InputXGradient(), output
    if len(size) == len(DEFAULT_SIZE) and all(metadata.feature_map is not None for metadata in files):
        yield GradCam(), output


def explain_alone(session: MaskedSession, image: NDArray[Any], method: Method, target: Any) -> Explanation:
    """Explains one image by one method; None explains the top class."""
    settings = ExplanationSettings(inputs=other_values(session) or None)
    ((explanation,),) = explain_all(session, [image], [[target]], method, settings)
    return explanation


def add_agreement(check: ExportCheck, path: Path, other: Source, kind: str) -> ExportCheck:
    """Returns a check with verdicts on how far a file agrees with an export of another source.

    Args:
        check: what was found so far.
        path: the path of the file that is checked.
        other: the source that counts as right, which is exported with the settings that the file records.
        kind: what the file computes in, a key of :data:`LIMITS`.
    """
    metadata, found = check.metadata, []
    before = {new: old for old, new in (metadata.renamed or {}).items()}
    settings = dataclasses.replace(
        recorded_settings(metadata),
        precision=None,
        gradient=metadata.gradient,
        gradient_output=metadata.gradient_output and before.get(metadata.gradient_output, metadata.gradient_output),
        feature_map=(),
    )

    def compare(written: Path, images: NDArray[Any]) -> dict[str, Any]:
        found.append(compare_files(written, path, images))
        return {}

    with temporary_directory() as directory:
        export_source(other, directory / "other.onnx", settings, compare)
    return dataclasses.replace(check, verdicts=(*check.verdicts, *judge_agreement(found[0], LIMITS[kind], other.name)))


def judge_agreement(agreement: Agreement, limits: Limits, name: str) -> Iterator[Verdict]:
    """Yields a verdict on each figure of an agreement with the source of a name."""
    yield judge_at_most("scores", agreement.scores, limits.scores, f"the outputs against {name} in float32")
    if agreement.first_choice is not None and agreement.lead_lost is not None:
        share = f"{agreement.first_choice:.0%} of {agreement.images} images have the same first choice as in {name}"
        yield judge_at_most(
            "lead lost", agreement.lead_lost, limits.lead_lost, f"{share}; the lead of one that changed"
        )
    for method, correlation in agreement.maps.items():
        meaning = f"rank correlation of the maps of {method} with those of {name}, at least"
        passed = None if correlation is None else correlation >= limits.maps
        value = "flat" if correlation is None else correlation
        yield Verdict(method, value, limits.maps, passed, meaning)


def judge_at_most(figure: str, value: float, limit: float, meaning: str) -> Verdict:
    """Returns a verdict on a figure that has a largest value."""
    return Verdict(figure, value, limit, value <= limit, meaning)
