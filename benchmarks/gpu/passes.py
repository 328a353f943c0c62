"""What passes of a network cost on a provider: against the plain network, and at the batch that is fastest."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from benchmarks.gpu.explanations import measure_explanations
from benchmarks.gpu.figures import finite, make_figure, ratios_of, time_in_turn
from benchmarks.gpu.jobs import Findings, Job
from benchmarks.gpu.machine import device_memory, host_memory
from benchmarks.gpu.networks import PLAIN, draw_images, draw_masks
from benchmarks.gpu.variants import OpenVariant, Run, leaving_out, open_agreeing, open_variant
from masktool.errors import MasktoolError
from masktool.runtime.batching import LARGEST_BATCH, find_fastest_batch
from masktool.runtime.native_log import runtime_reason

FOR_RATIOS, FOR_BATCHES = 0.2, 0.3
"""Parts of a job's time for the comparison with the plain network, and for the fastest batch of each variant."""
AT_FASTEST = ("plain", "masked", "fp16")
"""Variants whose fastest batch is looked for."""


def measure_passes(job: Job, findings: Findings) -> None:
    """Measures a network on a provider: parity first; what is beyond its limit is not timed."""
    end = time.perf_counter() + job.seconds
    opened = open_agreeing(job, findings)
    for each in opened.values():
        findings.add("options", value=dict(each.options))
    with leaving_out(findings, "ratios"):
        measure_ratios(job, findings, opened)
    fastest: dict[str, tuple[int, float]] = {}
    for variant in [name for name in AT_FASTEST if name in opened]:
        with leaving_out(findings, f"fastest batch, {variant}"):
            fastest[variant] = measure_fastest(job, findings, variant, opened[variant].run)
    if "masked" in fastest:
        session = opened["masked"].session
        assert session is not None
        measure_explanations(session, job, findings, *fastest["masked"], end)
    else:
        findings.leave_out("explanations", "the masked network was not timed")


def measure_ratios(job: Job, findings: Findings, opened: Mapping[str, OpenVariant]) -> None:
    """Times all variants in turn at one batch."""
    if PLAIN not in opened:
        findings.leave_out("ratios", "the plain network was not timed")
        return
    batch = fit_batch({name: each.run for name, each in opened.items()}, job)
    images, masks = draw_images(batch, job.size), draw_masks(batch, job.size)
    calls = {name: lambda run=each.run: run(images, masks) for name, each in opened.items()}
    times = time_in_turn(calls, job.repeats, job.seconds * FOR_RATIOS)
    findings.add("batch", value=batch)
    for name, seconds in times.items():
        findings.add("seconds per batch", name, value=make_figure(seconds))
        if name != PLAIN:
            findings.add("times the plain network", name, value=ratios_of(seconds, times[PLAIN]))


def fit_batch(runs: Mapping[str, Run], job: Job) -> int:
    """Returns the job's batch, halved until every variant runs with it; each has then run with it twice."""
    batch = job.batch
    while True:
        images, masks = draw_images(batch, job.size), draw_masks(batch, job.size)
        try:
            for run in runs.values():
                run(images, masks)
                run(images, masks)
            return batch
        except Exception:  # as in leaving_out: most likely of memory; what else it is, a batch of one raises too
            if batch == 1:
                raise
            batch //= 2


def measure_fastest(job: Job, findings: Findings, variant: str, run: Run) -> tuple[int, float]:
    """Finds the batch that runs the most images per second, and returns it with the images per second.

    Masks are those of one image, as explanations have them; the plain network gets as many images.
    """
    images, masks = draw_images(LARGEST_BATCH, job.size), draw_masks(LARGEST_BATCH, job.size)

    def run_batch(size: int) -> None:
        try:
            run(images[:size] if variant == PLAIN else images[:1], masks[:size])
        except MasktoolError:
            raise
        except Exception as error:  # as in leaving_out
            raise MasktoolError("ONNX Runtime could not run the model", got=runtime_reason(error)) from error

    batch = find_fastest_batch(run_batch)[-1].size
    share = job.seconds * FOR_BATCHES / len(AT_FASTEST)
    times = time_in_turn({variant: lambda: run_batch(batch)}, job.repeats, share)[variant]
    speeds = make_figure([batch / seconds for seconds in times])
    findings.add("fastest batch", variant, value={"batch": batch, "images per second": speeds})
    return batch, float(np.median(batch / np.array(times)))


def measure_memory(job: Job, findings: Findings) -> None:
    """Measures what this process takes to run one variant at the job's batch."""
    before = device_memory()
    opened = open_variant(job, job.variant)
    batch = fit_batch({job.variant: opened.run}, job)
    after = device_memory()
    findings.add("batch", value=batch)
    taken = host_memory()
    findings.add("host MiB", value="not known" if taken is None else finite(taken))
    findings.add("device MiB", value="not known" if before is None or after is None else after - before)
