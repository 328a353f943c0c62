"""What only a process of its own tells, and how long a command takes to its first pass."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.execution_providers import AUTO, know_provider
from masktool.files import temporary_directory
from masktool.interface.bench.child import UNTIL_FIRST_PASS
from masktool.interface.bench.spread import Clocks, Lap, clocks_of
from masktool.progress import Say
from masktool.runtime.session import MaskedSession

CHILD = "masktool.interface.bench.child"


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
