"""What only a process of its own tells: how long a command takes to its first pass, and how much memory it takes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.execution_providers import AUTO, know_provider
from masktool.files import temporary_directory
from masktool.interface.bench.child import UNTIL_FIRST_PASS, UNTIL_THE_END
from masktool.interface.bench.spread import Clocks, Lap, clocks_of
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

CHILD = "masktool.interface.bench.child"


@dataclasses.dataclass(frozen=True)
class MemoryFigures:
    """Peak memory of a process that explains one image by a method.

    Attributes:
        few: the smaller number of samples.
        many: the larger number of samples.
        few_bytes: the most memory taken with the smaller number, in bytes.
        many_bytes: the most memory taken with the larger number, in bytes.
        ratio: the latter by the former.
    """

    few: int
    many: int
    few_bytes: int
    many_bytes: int
    ratio: float


def measure_memory(
    sessions: Mapping[str, MaskedSession], image: Path, counts: tuple[int, int], say: Say
) -> dict[str, MemoryFigures]:
    """Measures peak memory with few and with many samples, each in a process of its own.

    Args:
        sessions: the model for each method by the method's name.
        image: the image file.
        counts: the two numbers of samples.
        say: function that is called with what is being measured.
    """
    found = {}
    for name, session in sessions.items():
        few, many = (measure_peak(session, image, name, count, say) for count in counts)
        found[name] = MemoryFigures(*counts, few, many, many / few)
    return found


def measure_peak(session: MaskedSession, image: Path, method: str, samples: int, say: Say) -> int:
    """Returns the most memory in bytes that explaining one image takes."""
    say(f"memory of {method} with {samples} samples")
    arguments = [*explain_arguments(session, image), "--method", method, "--samples", str(samples)]
    return int(run_child(UNTIL_THE_END, arguments)["peak_bytes"])


def measure_start(session: MaskedSession, image: Path, repeats: int, say: Say) -> Clocks:
    """Returns the seconds from the command, with a file that takes a mask already, to its first pass."""
    laps = []
    for number in range(repeats):
        say(f"start of the command, {number + 1} of {repeats}")
        began = time.monotonic()
        report = run_child(UNTIL_FIRST_PASS, explain_arguments(session, image))
        laps.append(Lap(report["first_pass"] - began, report["first_pass_cpu"]))
    return clocks_of(laps)


def explain_arguments(session: MaskedSession, image: Path) -> list[str]:
    """Returns the command line that explains an image with the model of a session, opened as the session is."""
    threads = [] if session.threads is None else ["--threads", str(session.threads)]
    options = [f"--provider-option={name}={value}" for name, value in session.provider_options.items()]
    known = know_provider(session.providers[0])
    provider = AUTO if known is None else known.name
    return ["explain", str(image), "-m", str(session.path), "--provider", provider, *threads, *options]


def run_child(until: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Runs a command line of masktool's in a process of its own, in an empty folder, and returns its report.

    Raises:
        MasktoolError: the command failed.
    """
    with temporary_directory() as folder:
        report = folder / "report.json"
        command = [sys.executable, "-m", CHILD, str(report), until, *arguments, "-o", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not report.is_file():
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise MasktoolError("the command could not be measured", where=" ".join(arguments), got=reason)
        found: dict[str, Any] = json.loads(report.read_text())
    return found
