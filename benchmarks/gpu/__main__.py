"""Measures masking, gradients and explanations on every execution provider that loads, unattended.

    python -m benchmarks.gpu                                            # ten minutes, torch for the networks
    python -m benchmarks.gpu --prepare networks                         # writes the networks' files, and no more
    python -m benchmarks.gpu --networks-from networks                   # needs no torch
    python -m benchmarks.gpu --small --provider cpu --provider webgpu   # the whole program, on a tiny network
    python -m benchmarks.gpu --table gpu.json --into docs/performance.md

Every job runs in a process of its own, and is ended when its share of the time is over. A provider's results are first
compared with the CPU's; what is beyond its limit is said, not timed, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import masktool  # noqa: F401 - before ONNX Runtime: turns its telemetry off
from benchmarks.gpu.jobs import WORKER, Budget, Job
from benchmarks.gpu.machine import describe_machine
from benchmarks.gpu.networks import NETWORKS, TINY
from benchmarks.gpu.plan import choose_measured, find_providers, is_beyond, is_empty, list_jobs, run_jobs
from benchmarks.gpu.report import write_table
from benchmarks.pages import put_table
from masktool.execution_providers import AUTO, NAMES, know_provider
from masktool.interface.provider_proof import SIDE

SMALL = {"network": [TINY], "size": SIDE, "batch": 2, "repeats": 3, "samples": 8, "minutes": 5.0}
"""The whole program, where a driver in software takes seconds for a pass."""
USUAL = {"network": list(NETWORKS), "size": 224, "batch": 16, "repeats": 15, "samples": None, "minutes": 10.0}
ALL_THE_TIME = 24 * 60.0
"""Minutes for the files of the networks, where nothing else is done."""


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for name in NAMES if name != AUTO]
    parser.add_argument("--provider", action="append", default=[], choices=names, help="all that load, by default")
    parser.add_argument(
        "--network", action="append", help=f"of torchvision, of a file, or {TINY}; {', '.join(NETWORKS)}"
    )
    parser.add_argument("--networks-from", type=Path, help="folder with NAME.onnx; what masktool makes is kept there")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="only write the files of the networks there")
    parser.add_argument("--size", type=int, help="height and width of the images; 224")
    parser.add_argument("--batch", type=int, help="images per pass where sides are compared; 16, fewer if memory ends")
    parser.add_argument("--repeats", type=int, help="most timed runs of each side; 15")
    parser.add_argument("--samples", type=int, help="most masks of LIME and RISE; the methods' own numbers")
    parser.add_argument("--minutes", type=float, help="time for all of it; 10")
    parser.add_argument("--threads", type=int, help="of an operator on the CPU; ONNX Runtime's choice")
    parser.add_argument("--small", action="store_true", help=f"other defaults: {SMALL}")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"), help="file of the figures; gpu.json")
    parser.add_argument("--table", type=Path, metavar="JSON", help="measure nothing; take the figures from a file")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table between the marks of a page")
    options = parser.parse_args(arguments)
    for name, value in (SMALL if options.small else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.provider = [provider.name for provider in map(know_provider, options.provider) if provider is not None]
    return options


def say(line: str) -> None:
    """Writes a line of progress."""
    print(line, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, scratch: Path, command: Sequence[str] = WORKER) -> dict[str, Any]:
    """Measures everything that the options ask for, writes the figures after each job, and returns them."""
    began, budget = time.monotonic(), Budget(options.minutes * 60)
    shared = {name: getattr(options, name) for name in ("size", "batch", "repeats", "samples", "threads")}
    job = Job(task="", folder=str(options.networks_from or scratch), scratch=str(scratch), **shared)
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": 0.0,
        "settings": {**shared, "minutes": options.minutes, "networks": options.network},
        "machine": describe_machine(options.threads),
        "providers": find_providers(options.provider, job, budget, say, command),
        "networks": {},
    }

    def save(networks: Mapping[str, Any]) -> None:
        report["networks"], report["seconds"] = networks, round(time.monotonic() - began, 1)
        options.output.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    measured = choose_measured(options.provider, report["providers"])
    save(run_jobs(list_jobs(options.network, measured, job), budget, save, say, command))
    return report


def prepare(options: argparse.Namespace) -> None:
    """Writes the files of the networks, and says which could not be written."""
    options.prepare.mkdir(parents=True, exist_ok=True)
    job = Job(task="", folder=str(options.prepare), size=options.size)
    jobs = [each for each in list_jobs(options.network, [], job) if each.task == "prepare"]
    results = run_jobs(jobs, Budget(ALL_THE_TIME * 60), lambda _: None, say)
    if any("failure" in network or "left_out" in network["prepare"] for network in results.values()):
        raise SystemExit(1)


def show(report: Mapping[str, Any], page: Path | None) -> None:
    """Prints the table, or puts it into a page."""
    table = write_table(report)
    if page is None:
        print(table)
    else:
        put_table(page, "benchmarks.gpu", table)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    if options.table is not None:
        return show(json.loads(options.table.read_text(encoding="utf-8")), options.into)
    if options.prepare is not None:
        return prepare(options)
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(options, Path(scratch))
    show(report, options.into)
    if is_beyond(report["networks"]) or is_empty(report["networks"]):
        raise SystemExit(1)
    return None


if __name__ == "__main__":
    main()
