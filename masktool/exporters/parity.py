"""Measures, on random inputs, that a masked model is what it claims to be; the figures go into the file.

The plain model is the source as it came, run by ONNX Runtime on the CPU like the masked one. Without it, what is left
to measure is whether the masked model agrees with itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from masktool.contract import BATCH_AXIS, GRADIENT_OUTPUTS, MASK_INPUT, TARGET_INPUT
from masktool.errors import MasktoolError
from masktool.exporters.one_image import first_rows
from masktool.exporters.probes import BATCH_SIZES, OtherInput, Probe, feed_of, others_of_session, type_of
from masktool.exporters.storage import open_session
from masktool.exporters.tolerance import LIMITS

__all__ = ["MEANINGS", "Verdict", "check_parity", "judge_parity", "measure_parity", "open_session"]

ONE_IMAGE_MASKS = 5

Outputs = list[np.ndarray]

MEANINGS = {
    "ones": "a mask of ones against the source",
    "left_out": "the mask left out, against the source or else a mask of ones",
    "invariance": "NaN, infinities and 1e30 under the mask against ordinary numbers",
    "batches": f"batches of {', '.join(map(str, BATCH_SIZES))} against images one by one",
    "one_image": "one image under many masks against one by one",
    "response": "what hiding half of the image changes",
    "framework": "the source in ONNX Runtime against its own framework",
}
"""One line for each figure, all relative to max |output|."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A session and how to feed it.

    Attributes:
        session: of a plain or a masked model.
        image_input: name of the image input.
        image_shape: of the image input, open axes as names or None.
        image_type: of the image input.
        others: values of all inputs but the image and the mask.
    """

    session: onnxruntime.InferenceSession
    image_input: str
    image_shape: Sequence[int | str | None]
    image_type: np.dtype[Any]
    others: Mapping[str, OtherInput]

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, image_input: str) -> Subject:
        """Draws values for the other inputs."""
        image = next(node for node in session.get_inputs() if node.name == image_input)
        masked = any(node.name == MASK_INPUT for node in inputs_of(session))
        others = others_of_session(session, image_input, BATCH_AXIS if masked else image.shape[0])
        return cls(session, image_input, image.shape, type_of(image), others)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, gradients apart."""
        own = GRADIENT_OUTPUTS if TARGET_INPUT in self.others else frozenset()
        return [node.name for node in self.session.get_outputs() if node.name not in own]

    @property
    def mask_optional(self) -> bool:
        """Whether the mask may be left out."""
        return any(node.name == MASK_INPUT for node in self.session.get_overridable_initializers())

    @property
    def one_by_one(self) -> bool:
        """Whether a masked model takes one image at a time."""
        return self.image_shape[0] == 1

    def run(self, images: np.ndarray, masks: np.ndarray | None = None) -> Outputs:
        """Returns every output of a masked model, in the graph's order, all images' behind each other."""
        if not self.one_by_one:
            return self.run_once(images, masks)
        count = max(len(images), 0 if masks is None else len(masks))
        runs = []
        for index in range(count):
            mask = None if masks is None else masks[index % len(masks)][None]
            runs.append(self.run_once(images[index % len(images)][None], mask))
        return stack(runs)

    def run_once(self, images: np.ndarray, masks: np.ndarray | None = None) -> Outputs:
        """Returns every output of one call, in the graph's order."""
        count = len(images) if masks is None else max(len(images), len(masks))
        feed = {self.image_input: images} | feed_of(self.others, count)
        results = self.session.run(self.outputs, feed | ({} if masks is None else {MASK_INPUT: masks}))
        return [np.asarray(each) for each in results]

    def run_plain(self, images: np.ndarray) -> Outputs:
        """Runs a source, in steps of its own batch size where that is fixed."""
        batch = self.image_shape[0]
        step, count = batch if isinstance(batch, int) else len(images), len(images)
        if len(images) % step:
            images = np.concatenate([images, np.resize(images, (step - len(images) % step, *images.shape[1:]))])
        found = stack([self.run_once(images[i : i + step]) for i in range(0, len(images), step)])
        return [output[: len(output) * count // len(images)] for output in found]

    def run_alone(self, images: np.ndarray) -> Outputs:
        """Runs a source on each image alone; a fixed batch is filled with copies of it, of which the first counts."""
        batch = self.image_shape[0] if isinstance(self.image_shape[0], int) else 1
        runs = [self.run_once(np.repeat(image[None], batch, axis=0)) for image in images]
        return stack([first_rows(run, batch) for run in runs])


def inputs_of(session: onnxruntime.InferenceSession) -> list[onnxruntime.NodeArg]:
    """Returns all inputs of a session, those with a default included."""
    return [*session.get_inputs(), *session.get_overridable_initializers()]


def measure_parity(
    masked: Subject,
    probes: Sequence[Probe],
    plain: Subject | None,
    reference: Callable[[np.ndarray], Outputs] | None = None,
) -> dict[str, float]:
    """Returns the figures, each relative to max |output| and the worst over all probes; :data:`MEANINGS` says which.

    Args:
        masked: the exported model.
        probes: what to run; one for every size.
        plain: the source; None leaves out what needs it.
        reference: the source in its own framework: every output, in the graph's order.

    Raises:
        MasktoolError: a model does not run on a probe.
    """
    figures: dict[str, float] = {}
    for probe in probes:
        try:
            found = measure_probe(masked, probe, plain)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise MasktoolError(
                "the model does not run", where=f"random images of {probe.size}", got=error, fix="give --input-size H W"
            ) from error
        for name, figure in found.items():
            figures[name] = max(figure, figures.get(name, 0.0))
    if plain is not None and reference is not None:
        images = probes[0].images
        expected = stack([reference(image[None]) for image in images] if masked.one_by_one else [reference(images)])
        figures["framework"] = relative_difference(run_source(masked, plain, images), expected)
    return figures


def run_source(masked: Subject, plain: Subject, images: np.ndarray) -> Outputs:
    """Runs a source as its masked model runs: many images at once, or each alone."""
    return plain.run_alone(images) if masked.one_by_one else plain.run_plain(images)


def measure_probe(masked: Subject, probe: Probe, plain: Subject | None) -> dict[str, float]:
    """Returns the figures on one probe."""
    images, masks = probe.images, probe.masks
    under_ones = masked.run(images, np.ones_like(masks))
    original = under_ones if plain is None else run_source(masked, plain, images)
    halved = masked.run(images, masks)
    figures = {} if plain is None else {"ones": relative_difference(under_ones, original)}
    if masked.mask_optional:
        figures["left_out"] = relative_difference(masked.run(images), original)
    return figures | {
        "invariance": relative_difference(masked.run(probe.poisoned(), masks), halved),
        **({} if masked.one_by_one else measure_batches(masked, probe)),
        "response": relative_difference(*of_one_shape(halved, original)),
    }


def measure_batches(masked: Subject, probe: Probe) -> dict[str, float]:
    """Returns the figures that compare images and masks in company with the same ones alone."""
    images, masks = probe.images, probe.masks
    singles = [masked.run(images[i : i + 1], masks[i : i + 1]) for i in range(len(images))]
    one_image = [masked.run(images[:1], masks[i : i + 1]) for i in range(ONE_IMAGE_MASKS)]
    return {
        "batches": max(relative_difference(masked.run(images[:n], masks[:n]), stack(singles[:n])) for n in BATCH_SIZES),
        "one_image": relative_difference(masked.run(images[:1], masks[:ONE_IMAGE_MASKS]), stack(one_image)),
    }


def of_one_shape(a: Outputs, b: Outputs) -> tuple[Outputs, Outputs]:
    """Returns the outputs that have the same shape in both runs: a list of what was found may have another length."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x.shape == y.shape]
    return [x for x, _ in pairs], [y for _, y in pairs]


def relative_difference(a: Outputs, b: Outputs) -> float:
    """Returns the largest over all outputs of max |a − b| / max |b|; infinity where shapes or NaNs differ."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        if x.shape != y.shape:
            return float("inf")
        difference = np.max(np.abs(x - y), initial=0.0)
        if not np.isfinite(difference):
            return float("inf")
        worst = max(worst, float(difference / max(np.max(np.abs(y), initial=0.0), np.finfo(np.float32).tiny)))
    return worst


def stack(runs: list[Outputs]) -> Outputs:
    """Joins runs along the batch, output by output."""
    return [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*runs, strict=True)]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One figure, or a digest, and whether it is within its limit; ``limit`` and ``passed`` are None without one."""

    figure: str
    value: float | str
    limit: float | str | None
    passed: bool | None
    meaning: str


def judge_parity(figures: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> Iterator[Verdict]:
    """Yields a verdict on each figure."""
    for name, value in figures.items():
        limit = limits.get(name)
        yield Verdict(name, value, limit, None if limit is None else value <= limit, MEANINGS.get(name, ""))


def check_parity(figures: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> None:
    """Raises MasktoolError when a figure is beyond its limit."""
    failed = [verdict for verdict in judge_parity(figures, limits) if verdict.passed is False]
    if failed:
        raise MasktoolError(
            "the masked model does not agree with its source",
            expected=", ".join(f"{each.figure} ≤ {each.limit:g}" for each in failed),
            got=", ".join(f"{each.figure} {each.value:.3g}" for each in failed),
            fix="nothing was written; this is a defect of masktool: please report the network",
        )
