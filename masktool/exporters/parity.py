"""Measures, on random inputs, that a masked model is what it claims to be; the figures go into the file.

The plain model is the source as it came, run by ONNX Runtime on the CPU like the masked one. Without a plain model,
what is left to measure is whether the masked model agrees with itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.bounded import run_within_limit
from masktool.exporters.differences import relative_difference
from masktool.exporters.image_axis import with_image_axis
from masktool.exporters.probes import BATCH_SIZES, Probe
from masktool.exporters.runnable import Outputs, RunnableModel, stack
from masktool.exporters.storage import open_session
from masktool.exporters.tolerance import LIMITS, widened
from masktool.messages import SIZE, parameter

__all__ = ["MEANINGS", "Verdict", "check_parity", "judge_parity", "measure_parity", "open_session"]

ONE_IMAGE_MASKS = 5
DEFECT = "nothing was written; this is a defect of masktool: please report the network"

MEANINGS = {
    "ones": "a mask of ones against the source",
    "left_out": "the mask left out, against the source or else a mask of ones",
    "invariance": "NaN, infinities and 1e30 under the mask against ordinary numbers",
    "batches": f"batches of {', '.join(map(str, BATCH_SIZES))}, fewer of large ones, against images one by one",
    "one_image": "one image under many masks against one by one",
    "response": "what hiding half of the image changes",
    "framework": "the source in ONNX Runtime against its own framework",
    "ones_unfused": "a mask of ones against the source, ONNX Runtime's optimisations off in both",
    "source_spread": "the source against itself: other optimisations, threads and batches",
    "head": "the feature map and the layers behind it, in two files, against the whole network",
    "plain_branch": "the file of both networks under a mask of ones, against the source or else its masked network",
    "masked_branch": "the file of both networks under masks, against its masked network alone",
    "uncorrected": "a calibrated file under a mask of ones against the same file without its correction",
    "correction": "corrected class scores against the correction computed from the scores as they were",
    "masked_spread": "the masked model against itself under a mask of ones: other optimisations and threads",
}
"""One line for each figure, all relative to max |output|."""


def measure_parity(
    masked: RunnableModel,
    probes: Sequence[Probe],
    plain: RunnableModel | None,
    reference: Callable[[np.ndarray], Outputs] | None = None,
) -> dict[str, float]:
    """Returns the parity figures, each relative to max |output| and the worst over all probes; see :data:`MEANINGS`.

    Args:
        masked: the exported model.
        probes: the images and masks to run; one probe for every size.
        plain: the source; None leaves out the figures that need it.
        reference: the source in its own framework: images -> every output, in the graph's order.

    Raises:
        MasktoolError: a model does not run on a probe.
    """
    figures: dict[str, float] = {}
    for probe in probes:
        own = reference if probe is probes[0] else None
        with reported_as("the masked model does not run", where=f"random images of {probe.size}", fix=DEFECT):
            found = measure_probe(masked, probe, plain, own)
        for name, figure in found.items():
            figures[name] = max(figure, figures.get(name, 0.0))
    return figures


def run_source(plain: RunnableModel, probe: Probe, *, alone: bool) -> Outputs:
    """Runs a source on a probe, or a masked model under a mask of ones; MasktoolError where it does not run in time.

    Args:
        plain: the source, or the masked model.
        probe: images and masks.
        alone: whether each image is run alone.
    """
    open_size = not all(isinstance(side, int) for side in plain.image_shape[1:])
    fix = "give " + parameter("input_size", SIZE) + ", if it is made for another size" if open_size else None
    images = f"random images of {probe.size}"
    if alone and plain.batch is None and not plain.takes_mask:
        images += ", one at a time"

    def run(runnable: RunnableModel) -> Outputs:
        if runnable.takes_mask:
            return runnable.run(probe.images, np.ones_like(probe.masks))
        return runnable.run_alone(probe.images) if alone else runnable.run_plain(probe.images)

    with reported_as("the source itself does not run in ONNX Runtime", where=images, fix=fix):
        return run_within_limit(plain, run, len(probe.images), images) if plain.loops else run(plain)


def source_like(under_ones: Outputs, plain: RunnableModel, probe: Probe, *, alone: bool) -> Outputs:
    """Returns a source's results in the shapes of the masked model's, which keeps the axis of a batch of one image."""
    return shaped_like(under_ones, run_source(plain, probe, alone=alone), plain)


def shaped_like(under_ones: Outputs, results: Outputs, plain: RunnableModel) -> Outputs:
    """Returns results of a source in the shapes of the masked model's, see :func:`source_like`."""
    return with_image_axis(results, under_ones) if plain.batch == 1 else results


def measure_probe(
    masked: RunnableModel,
    probe: Probe,
    plain: RunnableModel | None,
    reference: Callable[[np.ndarray], Outputs] | None = None,
) -> dict[str, float]:
    """Returns the parity figures on one probe; nothing is run twice, which at full size would take seconds."""
    images, masks, alone = probe.images, probe.masks, masked.one_by_one
    original = under_ones = masked.run(images, np.ones_like(masks))
    figures = {}
    if plain is not None:
        answers = run_source(plain, probe, alone=alone)
        original = shaped_like(under_ones, answers, plain)
        figures["ones"] = relative_difference(under_ones, original)
        if reference is not None:
            expected = stack([reference(image[None]) for image in images] if alone else [reference(images)])
            figures["framework"] = relative_difference(answers, expected)
    halved = masked.run(images, masks)
    if masked.mask_optional:
        figures["left_out"] = relative_difference(masked.run(images), original)
    return figures | {
        "invariance": relative_difference(masked.run(probe.poisoned(), masks), halved),
        **({} if alone else measure_batches(masked, probe, halved)),
        "response": relative_difference(*of_one_shape(halved, original)),
    }


def measure_branches(
    file: RunnableModel, masked: RunnableModel, probes: Sequence[Probe], plain: RunnableModel | None
) -> dict[str, float]:
    """Returns the parity figures of a file that holds the plain network beside the masked one, over all probes.

    Args:
        file: the file.
        masked: its masked network alone.
        probes: the images and masks to run.
        plain: the source; None takes the masked network under a mask of ones in its place.
    """
    figures: dict[str, float] = {}
    for probe in probes:
        images, masks = probe.images, probe.masks
        with reported_as("the file of both networks does not run", where=f"random images of {probe.size}", fix=DEFECT):
            original = under_ones = masked.run(images, np.ones_like(masks))
            if plain is not None:
                original = source_like(under_ones, plain, probe, alone=masked.one_by_one)
            found = {
                "plain_branch": relative_difference(file.run(images, np.ones_like(masks)), original),
                "masked_branch": relative_difference(file.run(images, masks), masked.run(images, masks)),
            }
            if file.mask_optional:
                found["left_out"] = relative_difference(file.run(images), original)
        for name, figure in found.items():
            figures[name] = max(figure, figures.get(name, 0.0))
    return figures


def measure_batches(masked: RunnableModel, probe: Probe, together: Outputs) -> dict[str, float]:
    """Returns the parity figures that compare images and masks in a batch with the same ones run alone.

    Args:
        masked: the exported model.
        probe: the images and masks to run.
        together: what the model gave for all of them in one batch.
    """
    images, masks = probe.images, probe.masks
    singles = [masked.run(images[i : i + 1], masks[i : i + 1]) for i in range(len(images))]
    one_image = singles[:1] + [
        masked.run(images[:1], masks[i : i + 1]) for i in range(1, min(ONE_IMAGE_MASKS, len(masks)))
    ]
    batches = {len(images): together} | {
        size: masked.run(images[:size], masks[:size]) for size in BATCH_SIZES if 1 < size < len(images)
    }
    return {
        "batches": max(relative_difference(found, stack(singles[:n])) for n, found in batches.items()),
        "one_image": relative_difference(masked.run(images[:1], masks[:ONE_IMAGE_MASKS]), stack(one_image)),
    }


def of_one_shape(a: Outputs, b: Outputs) -> tuple[Outputs, Outputs]:
    """Returns the outputs that have the same shape in both runs: a list of detections may have another length.

    Where every output is such a list, their beginnings are returned, laid out flat.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x.shape == y.shape]
    if not pairs:
        lengths = [min(x.size, y.size) for x, y in zip(a, b, strict=True)]
        pairs = [(x.reshape(-1)[:n], y.reshape(-1)[:n]) for x, y, n in zip(a, b, lengths, strict=True)]
    return [x for x, _ in pairs], [y for _, y in pairs]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A parity figure or digest, and whether it is within its limit; ``limit`` and ``passed`` are None without one."""

    figure: str
    value: float | str
    limit: float | str | None
    passed: bool | None
    meaning: str


def judge_parity(figures: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> Iterator[Verdict]:
    """Yields a verdict on each parity figure."""
    for name, value in figures.items():
        limit = widened(limits, figures).get(name)
        yield Verdict(name, value, limit, None if limit is None else value <= limit, MEANINGS.get(name, ""))


def check_parity(figures: Mapping[str, float], limits: Mapping[str, float] = LIMITS, fix: str = DEFECT) -> None:
    """Raises MasktoolError, with a fix, when a parity figure is beyond its limit."""
    failed = [verdict for verdict in judge_parity(figures, limits) if verdict.passed is False]
    if failed:
        raise MasktoolError(
            "the masked model does not agree with its source",
            expected=", ".join(f"{each.figure} ≤ {each.limit:g}" for each in failed),
            got=", ".join(f"{each.figure} {each.value:.3g}" for each in failed),
            fix=fix,
        )
