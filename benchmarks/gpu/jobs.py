"""Jobs in processes of their own: none takes longer than its time, and one that crashes ends nothing but itself.

What a job has found when it ends, or is ended, counts: it writes every finding at once, one line of JSON each.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

WORKER = (sys.executable, "-m", "benchmarks.gpu.worker")
PART_TO_MEASURE = 0.85
"""Of a job's time: after it nothing further is begun, and what runs by then may come to its end."""
LONGEST_REASON = 300
"""Characters of the last line that a crashed process wrote."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process of its own is to do; as JSON on its command line.

    Attributes:
        task: name of a task of the worker.
        folder: folder with the files of the networks.
        scratch: folder for what the jobs of one run leave to one another.
        network: name of the network.
        provider: masktool's name of the provider.
        providers: names of all providers that files are written for; empty for whichever.
        variant: name of the network's variant, in tasks that run one.
        size: height and width of the images.
        batch: images per pass where sides are compared.
        repeats: most runs of each job that is timed.
        samples: most masks of LIME and of RISE; None for the methods' own numbers.
        threads: threads that one node may use on the CPU; None leaves it to ONNX Runtime.
        seconds: seconds after which nothing further is begun.
    """

    task: str
    folder: str
    scratch: str = ""
    network: str = ""
    provider: str = "cpu"
    providers: tuple[str, ...] = ()
    variant: str = "plain"
    size: int = 224
    batch: int = 16
    repeats: int = 15
    samples: int | None = None
    threads: int | None = None
    seconds: float = 60.0


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
        findings: what the job found, nested by name.
        failure: reason why it did not come to its end; None where it did.
        seconds: seconds that it took.
    """

    findings: dict[str, Any]
    failure: str | None
    seconds: float


class Findings:
    """What a job finds, written as it is found.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *names: str, value: Any) -> None:
        """Adds a finding under its names, the outermost first."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([names, value], allow_nan=False) + "\n")

    def leave_out(self, what: str, why: object) -> None:
        """Says that something was not measured, and why."""
        self.add("left_out", what, value=str(why))

    def read(self) -> dict[str, Any]:
        """Returns what was found so far; a line that was cut off counts for nothing."""
        found: dict[str, Any] = {}
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        for names, value in map(json.loads, lines):
            place = found
            for name in names[:-1]:
                place = place.setdefault(name, {})
            place[names[-1]] = value
        return found


class Budget:
    """Seconds that are shared out among jobs.

    Args:
        seconds: seconds from now on.
        clock: function that returns seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.end = clock, clock() + seconds

    def left(self) -> float:
        """Returns the seconds that are left, from 0."""
        return max(self.end - self.clock(), 0.0)

    def share(self, weights: Sequence[float]) -> float:
        """Returns the seconds for the first of several jobs: what is left, divided by their weights."""
        return self.left() * weights[0] / sum(weights)


def run_job(job: Job, seconds: float, command: Sequence[str] = WORKER) -> Outcome:
    """Runs a job in a process of its own, which is ended when its seconds are over."""
    own = dataclasses.asdict(dataclasses.replace(job, seconds=seconds * PART_TO_MEASURE))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings, errors = Findings(Path(folder) / "findings"), Path(folder) / "errors"
        with errors.open("wb") as log:
            process = subprocess.Popen(
                [*command, json.dumps(own), str(findings.path)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
            try:
                status = process.wait(max(seconds, 0.1))
                failure = describe_end(status, errors) if status else None
            except subprocess.TimeoutExpired:
                failure = f"ended when its {seconds:.0f} s were over"
            finally:
                process.kill()
                process.wait()
        found = findings.read()
    return Outcome(found, found.pop("failure", None) or failure, time.monotonic() - began)


def describe_end(status: int, errors: Path) -> str:
    """Returns how a process ended that did not succeed, with the last line that it wrote."""
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{how}: {lines[-1][:LONGEST_REASON]}" if lines else how


def read_job(text: str) -> Job:
    """Returns a job from its JSON."""
    values: Mapping[str, Any] = json.loads(text)
    return Job(**values)
