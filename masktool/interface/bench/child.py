"""Runs ``masktool`` in a process of its own, and writes when its first pass began and how much memory it took.

``python -m masktool.interface.bench.child REPORT START|END ARGUMENT...``; with ``START`` the process ends with its
first pass.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from masktool.runtime.batching import peak_memory
from masktool.runtime.passes import PassCounter

UNTIL_FIRST_PASS = "START"
UNTIL_THE_END = "END"


class FirstPass:
    """Notes when the first pass of this process begins.

    Args:
        report: the file to write and end the process with then; None goes on.

    Attributes:
        began: the system's monotonic clock when the first pass began, in seconds; None before.
        cpu: the time of all threads of this process on the CPU until then, in seconds; None before.
        passes: the number of images pushed through models since.
    """

    def __init__(self, report: Path | None) -> None:
        self.began: float | None = None
        self.cpu: float | None = None
        self.passes = 0
        self._report = report

    def watch(self) -> None:
        """Begins to look at every pass."""
        timing = PassCounter.timing

        def note_and_time(counter: PassCounter, count: int) -> AbstractContextManager[None]:
            if self.began is None:
                self.began, self.cpu = time.monotonic(), time.process_time()
                if self._report is not None:
                    write_measured(self._report, self)
                    os._exit(0)  # what comes behind is not asked for
            self.passes += count
            return timing(counter, count)

        setattr(PassCounter, "timing", note_and_time)  # noqa: B010  # mypy takes no assignment to a method


def write_measured(path: Path, first: FirstPass) -> None:
    """Writes what was measured so far."""
    found = {
        "first_pass": first.began,
        "first_pass_cpu": first.cpu,
        "passes": first.passes,
        "peak_bytes": peak_memory(),
    }
    path.write_text(json.dumps(found))


def run_and_report() -> None:
    """Runs the command line behind the path of the report, as ``python -m masktool`` does."""
    report, until, *arguments = sys.argv[1:]
    first = FirstPass(Path(report) if until == UNTIL_FIRST_PASS else None)
    first.watch()
    sys.argv = ["masktool", *arguments]
    try:
        runpy.run_module("masktool", run_name="__main__")
    finally:
        write_measured(Path(report), first)


if __name__ == "__main__":
    run_and_report()
