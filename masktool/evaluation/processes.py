"""Images measured in several processes, each with the models opened for itself; the records come in the images' order.

A part travels as it is, its sessions as the way to open them again. What a process has measured is handed over at once,
so that a run that ends has lost no more than each process was at.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool

from masktool.datasets.dataset import DatasetImage
from masktool.errors import MasktoolError
from masktool.evaluation.part import Part
from masktool.evaluation.scene import read_scene
from masktool.files import CannotWriteError
from masktool.journal import Record
from masktool.limits import limits, raised_limits

WINDOW = 2
"""Images for each process that are handed out beyond the first unfinished one."""
Outcome = Record | MasktoolError
"""An image's record, or why it cannot be measured."""
_PART: list[Part] = []
"""The part that this process measures, and in a process of its own nothing else."""


def measure_here(part: Part, images: Sequence[DatasetImage]) -> Iterator[tuple[DatasetImage, Outcome]]:
    """Yields each image with its record, or with why it cannot be measured."""
    for image in images:
        yield image, measure_image(part, image)


def measure_in_processes(
    part: Part, images: Sequence[DatasetImage], jobs: int
) -> Iterator[tuple[DatasetImage, Outcome]]:
    """Does what :func:`measure_here` does, in several processes.

    Raises:
        MasktoolError: a process ended, or could not open the models.
    """
    context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
    with concurrent.futures.ProcessPoolExecutor(jobs, context, take_part, (part, raised_limits())) as pool:
        waiting, running = deque(images), deque[tuple[DatasetImage, concurrent.futures.Future[Outcome]]]()
        try:
            while waiting or running:
                while waiting and len(running) < WINDOW * jobs:
                    image = waiting.popleft()
                    running.append((image, pool.submit(measure_taken, image)))
                image, future = running.popleft()
                yield image, future.result()
        except BrokenProcessPool as error:
            raise MasktoolError(
                "a process ended before its image was measured",
                where=image.name,
                fix="what was measured is kept: run again, with fewer processes if memory ran out",
            ) from error
        finally:
            for _, future in running:
                future.cancel()


def take_part(part: Part, raised: Mapping[str, int]) -> None:
    """Prepares a process: an interruption of the terminal is the first process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    contextlib.ExitStack().enter_context(limits(**raised))
    _PART[:] = [part]


def measure_taken(image: DatasetImage) -> Outcome:
    """Measures an image in a process that has taken a part."""
    (part,) = _PART
    return measure_image(part, image)


def measure_image(part: Part, image: DatasetImage) -> Outcome:
    """Returns an image's record, or why it cannot be measured.

    Raises:
        CannotWriteError: a file cannot be written, which is no image's fault.
    """
    try:
        return part.measure(read_scene(image, part.models[0].session))
    except CannotWriteError:
        raise
    except MasktoolError as error:
        return error
