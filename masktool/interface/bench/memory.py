"""Peak memory of a process that explains one image, with few passes and with many."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from masktool.contract import Size
from masktool.explainers.learned_mask import LearnedMask
from masktool.explainers.method import METHODS
from masktool.explainers.stopping import FIRST_LOOK
from masktool.interface.bench.child import UNTIL_THE_END
from masktool.interface.bench.processes import explain_arguments, run_child
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

MOST_IMAGES = FIRST_LOOK
"""Most images in a pass: a method that may stop early begins with no more, and larger passes take more memory."""


@dataclasses.dataclass(frozen=True)
class MemoryFigures:
    """Peak memory of a process that explains one image by a method.

    Attributes:
        few: the smaller number of masks or steps that was asked for.
        many: the larger number.
        few_passes: the number of images pushed through the model for the smaller number; windows that step by whole
            pixels may be fewer.
        many_passes: the same for the larger number.
        few_bytes: the most memory taken for the smaller number, in bytes.
        many_bytes: the most memory taken for the larger number, in bytes.
        ratio: the latter by the former.
    """

    few: int
    many: int
    few_passes: int
    many_passes: int
    few_bytes: int
    many_bytes: int
    ratio: float


class Peak(NamedTuple):
    """The number of images pushed through a model, and the most memory in bytes taken for that."""

    passes: int
    taken: int


def measure_memory(
    sessions: Mapping[str, MaskedSession], image: Path, size: Size, counts: tuple[int, int], say: Say
) -> dict[str, MemoryFigures]:
    """Measures peak memory with few and with many masks or steps, each in a process of its own.

    Args:
        sessions: the model for each method by the method's name.
        image: the image file.
        size: (height, width) of the model's input for that image.
        counts: the two numbers of masks or steps.
        say: function that is called with what is being measured.
    """
    found = {}
    for name, session in sessions.items():
        few, many = (measure_peak(session, image, name, options_of_count(name, size, count), say) for count in counts)
        found[name] = MemoryFigures(*counts, few.passes, many.passes, few.taken, many.taken, many.taken / few.taken)
    return found


def measure_peak(session: MaskedSession, image: Path, method: str, options: Sequence[str], say: Say) -> Peak:
    """Measures the memory that explaining one image takes, with options of the command line."""
    say(f"memory of {method} {' '.join(options)}")
    batch = min(session.batch_size(), MOST_IMAGES)
    arguments = [*explain_arguments(session, image), "--method", method, "--batch", str(batch), *options]
    report = run_child(UNTIL_THE_END, arguments)
    return Peak(int(report["passes"]), int(report["peak_bytes"]))


def counted_methods(names: Sequence[str]) -> Iterator[str]:
    """Yields the names of the methods whose number of masks or steps is the user's; a descent ends when it settles."""
    for name in names:
        method: Any = METHODS[name]
        if has_windows(name) or (method.samples_option is not None and not issubclass(method, LearnedMask)):
            yield name


def has_windows(name: str) -> bool:
    """Tells whether a method slides a window, so that the strides say how many masks it takes."""
    return any(field.name == "strides" for field in dataclasses.fields(METHODS[name]))


def options_of_count(name: str, size: Size, count: int) -> list[str]:
    """Returns the options with which a method takes a number of masks or steps, or as many as pixels allow.

    Args:
        name: the name of the method.
        size: (height, width) of the model's input in pixels.
        count: the number of masks or steps.
    """
    method: Any = METHODS[name]
    if method.samples_option is not None:
        return ["--samples", str(count), *(["--budget", str(count + 1)] if method.draws() else [])]
    window, _ = method().resolve(size)
    steps = max(1, round(math.sqrt(count)) - 1)
    strides = [max(1, min(each, (length - each) // steps)) for length, each in zip(size, window, strict=True)]
    bound = ["--set", f"most_masks={count}"] if hasattr(method, "most_masks") else []
    return ["--set", f"strides={strides}", *bound]
