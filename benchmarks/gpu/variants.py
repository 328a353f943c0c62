"""A network's variants, open on a provider, and how far their results are from the CPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import masktool
from benchmarks.gpu.figures import finite
from benchmarks.gpu.jobs import Findings, Job
from benchmarks.gpu.networks import PLAIN, VARIANTS, draw_images, draw_masks, file_of
from masktool.errors import MasktoolError, describe_exception
from masktool.exporters.differences import relative_difference
from masktool.runtime.providers import open_on_providers
from masktool.runtime.session import MaskedSession

PAIRS = 2
"""Images with their masks that parity is measured on."""
TARGET = 0
"""Class whose gradients are taken."""
EXACT, ROUNDED = 1e-4, 2e-2
"""Largest relative differences from the CPU's results in float32, of arithmetic in 32 bits and in 16."""
GRADIENT = 1e-3
"""The same of gradients: where an activation is about 0, rounding decides whether it passes any on."""
LIMITS: Mapping[str, float] = {PLAIN: EXACT, "masked": EXACT, "filled": EXACT, "gradient": GRADIENT, "fp16": ROUNDED}
EXPECTED_OF: Mapping[str, str] = {"fp16": "masked"}
"""Variants that are compared with another one's results on the CPU."""
HIDDEN_NAN = "masked, NaN under the mask"
"""Name of the comparison in which hidden pixels are no numbers; they must have no influence."""
Run = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
"""Function that takes images and masks, and returns arrays."""


class OpenVariant(NamedTuple):
    """A variant of a network, open on a provider.

    Attributes:
        run: function that takes images and as many masks, and returns arrays; the plain network leaves masks alone.
        session: masktool's session; None for the plain network.
        options: options of the provider, as ONNX Runtime reads them.
    """

    run: Run
    session: MaskedSession | None
    options: Mapping[str, str]


def open_variant(job: Job, variant: str) -> OpenVariant:
    """Opens a variant of the job's network on the job's provider."""
    path = file_of(Path(job.folder), job.network, variant, job.provider)
    if variant == PLAIN:
        opened = open_on_providers(path, job.provider, job.threads)
        return OpenVariant(run_plain(opened.session), None, opened.options)
    session = masktool.load(path, job.provider, job.threads)
    run = run_gradient(session) if VARIANTS[variant].get("gradient") else run_masked(session)
    return OpenVariant(run, session, session.provider_options)


def run_plain(session: Any) -> Run:
    """Returns the run of a plain network."""
    image, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(images: np.ndarray, _: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run([output], {image: images})
        return found

    return run


def run_masked(session: MaskedSession) -> Run:
    """Returns the run of a network with masks."""
    return lambda images, masks: [session(images, masks)]


def run_gradient(session: MaskedSession) -> Run:
    """Returns the run of a network with masks that gives the scores and both gradients."""

    def run(images: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
        found = session.gradient(images, masks, target=TARGET, of=("image", "mask"))
        return [each for each in (found.scores, found.image, found.mask) if each is not None]

    return run


@contextlib.contextmanager
def leaving_out(findings: Findings, what: str) -> Iterator[None]:
    """Notes why something could not be measured, whatever the provider raises, and goes on behind the block."""
    try:
        yield
    except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
        findings.leave_out(what, describe_exception(error))


def reference_path(job: Job) -> Path:
    """Returns the path of the file of the CPU's results."""
    return Path(job.scratch) / f"{job.network}.npz"


def write_reference(job: Job, findings: Findings) -> None:
    """Runs every variant of 32 bits on the CPU and writes the results into a file."""
    images, masks = draw_images(PAIRS, job.size), draw_masks(PAIRS, job.size)
    results: dict[str, np.ndarray] = {}
    for variant in [each for each in (PLAIN, *VARIANTS) if each not in EXPECTED_OF]:
        with leaving_out(findings, variant):
            found = open_variant(job, variant).run(images, masks)
            results |= {f"{variant}.{index}": array for index, array in enumerate(found)}
    if not results:
        raise MasktoolError("no variant runs on the CPU", where=job.network)
    np.savez(reference_path(job), allow_pickle=False, **results)


def read_reference(job: Job) -> dict[str, list[np.ndarray]]:
    """Returns the CPU's results by variant."""
    found: dict[str, list[np.ndarray]] = {}
    with np.load(reference_path(job)) as file:
        for name in sorted(file.files):
            found.setdefault(name.rpartition(".")[0], []).append(file[name])
    return found


def open_agreeing(job: Job, findings: Findings) -> dict[str, OpenVariant]:
    """Opens every variant on the provider, compares it with the CPU, and returns those that agree with it."""
    images, masks = draw_images(PAIRS, job.size), draw_masks(PAIRS, job.size)
    expected, agreeing = read_reference(job), {}
    for variant in (PLAIN, *VARIANTS):
        own = expected.get(EXPECTED_OF.get(variant, variant))
        if own is None:
            findings.leave_out(variant, "the CPU gave no results to compare with")
            continue
        with leaving_out(findings, variant):
            opened = open_variant(job, variant)
            agrees = compare(findings, variant, LIMITS[variant], opened.run(images, masks), own)
            if variant == "masked":
                hidden = np.where(masks == 0, np.float32(np.nan), images)
                found = opened.run(hidden, masks)
                agrees &= compare(findings, HIDDEN_NAN, LIMITS[variant], found, own)
            if agrees:
                agreeing[variant] = opened
    return agreeing


def compare(findings: Findings, name: str, limit: float, found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Notes how far results are from the CPU's, and returns whether that is within a limit."""
    difference = relative_difference(found, expected)
    within = difference <= limit
    value = {"difference": finite(difference), "limit": limit, "within": within}
    findings.add("parity", name, value=value)
    return within
