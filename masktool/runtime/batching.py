"""How many masked images go through the model at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.limits import limit
from masktool.option_checks import check_count

CPU_PIXELS = 8 * 224 * 224
"""Input pixels per batch on the CPU: 8 images of 224 x 224, beyond which more images cost memory and save no time."""
CPU_PIXELS_WITH_GRADIENTS = CPU_PIXELS // 2
"""The same for a file with gradients, of which every pass keeps what all nodes gave: 4 images of 224 x 224."""
GPU_PIXELS = 64 * 224 * 224
"""Input pixels per batch on a GPU, which needs more work at once to be busy."""
LARGEST_BATCH = 256
"""Most images in a batch that is chosen here for a GPU, however small the images are."""
LARGEST_CPU_BATCH = 16
"""The same on the CPU, whose caches more images at once do not fit: one thread took 16 % less time for each image of
64 x 64 with 16 of them than with 98, and 14 % less for each of 32 x 32 than with 256."""
ASSUMED_SIZE = (224, 224)
"""(height, width) of the input where the file leaves it open."""

FASTEST: Literal["fastest"] = "fastest"
"""In place of a number: the batch that runs the most images per second, measured."""
BatchSize = int | Literal["fastest"] | None
"""Number of images per batch, ``fastest`` to measure it, or None to choose it from the input's size."""
GROWTH = 1.05
"""How many times as many images per second a larger batch must run to be preferred."""
PATIENCE = 2
"""Batches in a row, each twice the one before, after which none that is preferred is expected any more."""
REPETITIONS = 2
"""Timed runs of a batch, of which the faster counts; one before them prepares memory and chooses kernels."""
TRIAL_SECONDS = 5.0
"""Seconds after which no larger batch is tried."""


class BatchTrial(NamedTuple):
    """A batch that was tried: the number of images, and how many of them ran in a second."""

    size: int
    speed: float


def choose_batch_size(requested: int | None, size: Size | None, *, on_gpu: bool, with_gradients: bool = False) -> int:
    """Returns the requested batch size, else one that bounds memory by the input's (height, width).

    Args:
        requested: the batch size that was asked for; None to choose it.
        size: (height, width) of the input, or what its axes of places are; None where the file leaves it open.
        on_gpu: whether the model runs on a GPU.
        with_gradients: whether a pass computes gradients.

    Raises:
        MasktoolError: the requested batch size is no whole number from 1.
    """
    if requested is not None:
        return check_count("requested", requested)
    on_cpu = CPU_PIXELS_WITH_GRADIENTS if with_gradients else CPU_PIXELS
    pixels = GPU_PIXELS if on_gpu else on_cpu
    return min(max(pixels // math.prod(size or ASSUMED_SIZE), 1), LARGEST_BATCH if on_gpu else LARGEST_CPU_BATCH)


def find_fastest_batch(
    run: Callable[[int], object],
    clock: Callable[[], float] = time.perf_counter,
    memory: Callable[[], int] | None = None,
) -> list[BatchTrial]:
    """Tries batches of 1, 2, 4 ... images, and returns the trials; the last is the batch to prefer.

    Larger ones are tried until images per second no longer grow, time or the memory of the limit ``batch-memory`` is
    used up, or the model cannot be run.

    Args:
        run: function that runs a number of images in one pass.
        clock: function that returns seconds.
        memory: function that returns the most bytes that the process has taken so far; None asks the system.

    Raises:
        MasktoolError: a single image cannot be run.
    """
    memory = memory or peak_memory
    began, taken = clock(), memory()
    best: list[BatchTrial] = []
    size, behind = 1, 0
    while size <= LARGEST_BATCH and behind < PATIENCE:
        try:
            seconds = time_batch(run, size, clock)
        except MasktoolError:
            if not best:
                raise
            break
        if not best or size / seconds > GROWTH * best[-1].speed:
            best.append(BatchTrial(size, size / seconds))
            behind = 0
        else:
            behind += 1
        next_one = 2 * (1 + REPETITIONS) * seconds
        if clock() - began + next_one > TRIAL_SECONDS or 2 * (memory() - taken) > limit("batch-memory"):
            break
        size *= 2
    return best


def time_batch(run: Callable[[int], object], size: int, clock: Callable[[], float]) -> float:
    """Returns the seconds that one run of a batch takes."""
    run(size)
    seconds = []
    for _ in range(REPETITIONS):
        began = clock()
        run(size)
        seconds.append(clock() - began)
    return max(min(seconds), sys.float_info.epsilon)


def peak_memory() -> int:
    """Returns the most bytes that this process has taken so far; always 0 where the system does not tell.

    What is on a device is not in it.
    """
    if sys.platform == "win32":
        return 0
    if STATUS.is_file():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) * KIBIBYTE
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIBIBYTE  # macOS counts bytes


KIBIBYTE = 1024
STATUS = Path("/proc/self/status")
"""Where Linux tells the peak of this program alone: a process's usage of resources keeps the peak of the program that
started it."""
