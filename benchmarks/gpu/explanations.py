"""Explanations from end to end: with masks that are made on the device, and with masks made in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.figures import finite, make_figure, time_in_turn
from benchmarks.gpu.jobs import Findings, Job
from benchmarks.gpu.networks import draw_images
from benchmarks.gpu.variants import leaving_out
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import Method, build_method
from masktool.interface.device_graphs import graphs_for
from masktool.runtime.session import MaskedSession

METHODS = {"occlusion": 256, "lime": 1000, "rise": 4000}
"""Methods that are measured, and their masks by default; those of occlusion are fewer at most sizes."""
FEWEST = 16
"""Masks below which an explanation is no example of any."""
ON_DEVICE, IN_MEMORY = "masks on the device", "masks in memory"
RUNS = 4
"""Runs of each method at least: two ways, each warmed up once."""
REPEATS = 5
"""Most timed runs of each way."""


def measure_explanations(
    session: MaskedSession, job: Job, findings: Findings, batch: int, speed: float, end: float
) -> None:
    """Times each method both ways, with as many masks as the time allows.

    Args:
        session: open session of the masked network.
        job: what is measured.
        findings: place of the figures.
        batch: number of masks per pass.
        speed: number of masks that run in a second.
        end: reading of ``time.perf_counter`` at which no further explanation is begun.
    """
    for place, (name, wanted) in enumerate(METHODS.items()):
        seconds = (end - time.perf_counter()) / (len(METHODS) - place)
        wanted = min(wanted, job.samples or wanted)
        masks = min(wanted, int(speed * max(seconds, 0.0) / RUNS))
        if masks < (wanted if name == "occlusion" else min(wanted, FEWEST)):
            findings.leave_out(name, f"{max(seconds, 0.0):.0f} s allow {masks} masks")
            continue
        with leaving_out(findings, name):
            measure_method(session, job, findings, name, choose_method(name, masks, job), batch, seconds)


def choose_method(name: str, masks: int, job: Job) -> Method:
    """Returns a method with a number of masks; occlusion has few windows where few masks are asked for."""
    if name != "occlusion":
        return build_method(name, {}, masks)
    few = {"sliding_window_shapes": job.size // 2, "strides": job.size // 2}
    return build_method(name, few if job.samples else {})


def measure_method(
    session: MaskedSession, job: Job, findings: Findings, name: str, method: Method, batch: int, seconds: float
) -> None:
    """Times one method, and compares the maps of the two ways."""
    began = time.perf_counter()
    settings = ExplanationSettings(perturbations_per_eval=batch)
    image = draw_images(1, job.size)[0]

    def explain(graphs: Any) -> Explanation:
        return explain_all(session, [image], [[None]], method, settings, graphs)[0][0]

    ways: dict[str, Callable[[], Explanation]] = {IN_MEMORY: lambda: explain(None)}
    if session.device is not None:
        ways[ON_DEVICE] = lambda: explain(graphs_for(session))
    maps = {way: run() for way, run in ways.items()}
    findings.add("explanations", name, "passes", value=maps[IN_MEMORY].forward_passes)
    findings.add("explanations", name, "batch", value=batch)
    if ON_DEVICE in ways and session.device_note is None:
        expected = maps[IN_MEMORY].attributions
        difference = np.max(np.abs(maps[ON_DEVICE].attributions - expected)) / (np.ptp(expected) or 1.0)
        findings.add("explanations", name, "largest difference of the maps", value=finite(float(difference)))
    else:
        findings.leave_out(ON_DEVICE, session.device_note or "the provider has no memory of its own to bind to")
        ways.pop(ON_DEVICE, None)
    left = seconds - (time.perf_counter() - began)
    for way, times in time_in_turn(ways, min(job.repeats, REPEATS), left).items():
        findings.add("explanations", name, way, value=make_figure(times))
