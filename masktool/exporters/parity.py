"""Measures, on random inputs, that a masked model is what it claims to be; the figures go into the file.

The plain model is the source as it came, run by ONNX Runtime on the CPU like the masked one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime

from masktool.contract import MASK_INPUT, Layout
from masktool.errors import MasktoolError

ONES_TOLERANCE = 1e-5
"""Relative to max |output|: what a lost fusion in the runtime may cost under a mask of ones. Most networks show 0."""
BATCH_TOLERANCE = 1e-4
"""Relative to max |output|: runtimes choose other kernels for other batch sizes, which round differently."""
BATCH_SIZES = (1, 3, 8)
FATAL = 4
"""ONNX Runtime's log severity: errors reach us as exceptions."""

Outputs = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Probe:
    """Random images, and masks in which half of the places, block by block, are missing."""

    images: np.ndarray
    masks: np.ndarray

    @classmethod
    def draw(cls, shape: tuple[int, int, int], layout: Layout, dtype: Any, seed: int = 0) -> Probe:
        """Draws as many as the largest batch.

        Args:
            shape: (channels, height, width).
            layout: of the images.
            dtype: of the images.
            seed: of the random numbers.
        """
        rng = np.random.default_rng(seed)
        channels, height, width = shape
        count = max(BATCH_SIZES)
        images = rng.standard_normal((count, channels, height, width)).astype(dtype)
        blocks = rng.random((count, 1, 7, 7)) < 0.5
        rows, columns = np.arange(height) * 7 // height, np.arange(width) * 7 // width
        masks = blocks[:, :, rows][:, :, :, columns].astype(np.float32)
        return cls(images if layout == "NCHW" else images.transpose(0, 2, 3, 1), masks)

    def poisoned(self) -> np.ndarray:
        """Returns the images with NaN and infinities wherever the masks are 0."""
        layout_last = self.images.shape[-2:] != self.masks.shape[-2:]
        missing = (self.masks if not layout_last else self.masks.transpose(0, 2, 3, 1)) == 0
        poison = np.resize(np.array([np.nan, np.inf, -np.inf], self.images.dtype), self.images.shape)
        return np.where(missing, poison, self.images)


def open_session(model: bytes | str) -> onnxruntime.InferenceSession:
    """Opens a model on the CPU provider.

    Raises:
        MasktoolError: ONNX Runtime does not take it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own C++ exception types
        raise MasktoolError("ONNX Runtime does not take the model", got=error) from error


def run_plain(session: onnxruntime.InferenceSession, image_input: str, images: np.ndarray) -> Outputs:
    """Runs the source, in steps of its own batch size where that is fixed."""
    fixed = next(value.shape[0] for value in session.get_inputs() if value.name == image_input)
    step = fixed if isinstance(fixed, int) else len(images)
    if len(images) % step:
        images = np.concatenate([images, np.resize(images, (step - len(images) % step, *images.shape[1:]))])
    parts = [session.run(None, {image_input: images[i : i + step]}) for i in range(0, len(images), step)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def relative_difference(a: Outputs, b: Outputs) -> float:
    """Returns the largest over all outputs of max |a − b| / max |b|."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        difference = np.max(np.abs(x - y[: len(x)]), initial=0.0)
        if not np.isfinite(difference):
            return float("inf")
        worst = max(worst, float(difference / max(np.max(np.abs(y), initial=0.0), np.finfo(np.float32).tiny)))
    return worst


def measure_parity(
    plain: onnxruntime.InferenceSession,
    masked: onnxruntime.InferenceSession,
    image_input: str,
    probe: Probe,
    reference: Callable[[np.ndarray], np.ndarray] | None,
    reference_output: int | None,
) -> dict[str, float]:
    """Returns the figures, each relative to max |output|: see :func:`check_parity` for what they must be.

    Args:
        plain: the source.
        masked: the exported model.
        image_input: name of the image input of both.
        probe: what to run.
        reference: the source in its own framework.
        reference_output: which output the reference computes.
    """

    def run(images: np.ndarray, masks: np.ndarray) -> Outputs:
        return masked.run(None, {image_input: images, MASK_INPUT: masks})

    images, masks = probe.images, probe.masks
    original = run_plain(plain, image_input, images)
    ones = np.ones_like(masks)
    halved = run(images, masks)
    singles = [run(images[i : i + 1], masks[i : i + 1]) for i in range(len(images))]
    one_image = [run(images[:1], masks[i : i + 1]) for i in range(5)]
    figures = {
        "ones": relative_difference(run(images, ones), original),
        "invariance": relative_difference(run(probe.poisoned(), masks), halved),
        "batches": max(relative_difference(run(images[:n], masks[:n]), stack(singles[:n])) for n in BATCH_SIZES),
        "one_image": relative_difference(run(images[:1], masks[:5]), stack(one_image)),
        "response": relative_difference(halved, original),
    }
    if any(value.name == MASK_INPUT for value in masked.get_overridable_initializers()):
        figures["left_out"] = relative_difference(masked.run(None, {image_input: images}), original)
    if reference is not None and reference_output is not None:
        figures["framework"] = relative_difference([original[reference_output]], [reference(images)])
    return figures


def stack(runs: list[Outputs]) -> Outputs:
    """Joins runs along the batch, output by output."""
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


LIMITS = {
    "ones": ONES_TOLERANCE,
    "left_out": ONES_TOLERANCE,
    "invariance": 0.0,
    "batches": BATCH_TOLERANCE,
    "one_image": BATCH_TOLERANCE,
}
"""What each figure may be at most; ``response`` (the effect of masking half the image) and ``framework`` have none."""


def check_parity(figures: Mapping[str, float]) -> None:
    """Raises MasktoolError when a figure is beyond its limit."""
    failed = {name: figures[name] for name, limit in LIMITS.items() if name in figures and not figures[name] <= limit}
    if failed:
        raise MasktoolError(
            "the masked model does not agree with its source",
            expected=", ".join(f"{name} ≤ {LIMITS[name]:g}" for name in failed),
            got=", ".join(f"{name} {value:.3g}" for name, value in failed.items()),
            fix="nothing was written; this is a defect of masktool: please report the network",
        )
