"""What ``masktool explain DIR -o OUT`` costs beside the same passes in a bare loop, and what memory it takes.

Draws small pictures of the kind that the built-in network was trained on, explains the folder by the command, with
files written, and the same pictures in a loop over one open session that reads, prepares, masks, runs and attributes,
and writes nothing. Both are processes of their own with their start counted; the loop takes the first half of the
pictures before the command and the second half after it, so that both meet the same load. Memory is the peak of
resident memory of the command at 200 pictures and at all of them.

    python -m benchmarks.folders --photographs 2000 --method lime
    python -m benchmarks.folders --model squeezenet.onnx --photographs 200 --method occlusion
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from masktool import explain, load
from masktool.demo import shapes

SEED = 17
FEW = 200
"""Photographs of the smaller run, whose peak of memory is compared."""
DRAWN_AT_ONCE = 100
MIB = 1 << 20


class Cost(NamedTuple):
    """What a process took: seconds on the clock, seconds of all its CPUs, and its peak of resident memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak: int

    def __add__(self, other: object) -> Cost:
        assert isinstance(other, Cost)
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, max(self.peak, other.peak))


def draw_folder(folder: Path, count: int) -> list[Path]:
    """Draws pictures of 64 x 64 pixels as PNG files; the same ones for the same count."""
    folder.mkdir(parents=True)
    paths = []
    for first in range(0, count, DRAWN_AT_ONCE):
        drawn = shapes.draw(SEED + first, min(DRAWN_AT_ONCE, count - first))
        for offset, picture in enumerate(drawn.images):
            paths.append(folder / f"{first + offset:05}.png")
            Image.fromarray(picture).save(paths[-1])
    return paths


def run_process(command: Sequence[str]) -> Cost:
    """Runs a command to its end, without its output, and returns what it took."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def explain_bare(model: str | None, method: str, threads: int, samples: int | None, paths: Sequence[str]) -> None:
    """Explains photographs in a loop, and keeps nothing."""
    with load(model, "cpu", threads=threads) as session:
        for path in paths:
            explain(session, path, method, n_samples=samples)


def bare_command(arguments: argparse.Namespace, listed: Path) -> list[str]:
    """Returns the command of the loop over the photographs that a file lists."""
    command = [sys.executable, "-m", "benchmarks.folders", "--bare", str(listed), "--method", arguments.method]
    return [*command, *model_options(arguments)]


def folder_command(arguments: argparse.Namespace, folder: Path, out: Path) -> list[str]:
    """Returns the command of masktool's that explains a folder."""
    command = [sys.executable, "-m", "masktool", "explain", str(folder), "-o", str(out), "--provider", "cpu"]
    command += ["--method", arguments.method, "--format", arguments.format, "--jobs", str(arguments.jobs)]
    return [*command, *model_options(arguments)]


def model_options(arguments: argparse.Namespace) -> list[str]:
    """Returns the options that both commands share."""
    found = ["--threads", str(arguments.threads)]
    found += [] if arguments.model is None else ["--model", arguments.model]
    return found + ([] if arguments.samples is None else ["--samples", str(arguments.samples)])


def measure(arguments: argparse.Namespace, place: Path) -> None:
    """Measures both, and prints what they took."""
    paths = draw_folder(place / "all", arguments.photographs)
    fewer = draw_folder(place / "few", min(FEW, arguments.photographs))
    half = len(paths) // 2
    halves = [place / "first.txt", place / "second.txt"]
    for listed, part in zip(halves, (paths[:half], paths[half:]), strict=True):
        listed.write_text("\n".join(map(str, part)))
    few = run_process(folder_command(arguments, place / "few", place / "few-out"))
    before = run_process(bare_command(arguments, halves[0]))
    whole = run_process(folder_command(arguments, place / "all", place / "all-out"))
    bare = before + run_process(bare_command(arguments, halves[1]))
    count = len(paths)
    print(f"{count} photographs of 64 x 64, {arguments.method}, {arguments.format}, {arguments.threads} thread(s)")
    print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name, cost in (("explain DIR -o OUT", whole), ("bare loop", bare)):
        print(f"{name:20} {cost.seconds / count:.3f} s an image, {cost.cpu_seconds / count:.3f} s of CPU time")
    clock, cpu = whole.seconds / bare.seconds, whole.cpu_seconds / bare.cpu_seconds
    print(f"ratio {clock:.3f} on the clock, {cpu:.3f} in CPU time")
    peaks = [round(cost.peak / MIB) for cost in (few, whole, bare)]
    print(f"peak memory: {peaks[0]} MiB at {len(fewer)} photographs, {peaks[1]} at {count}; of the loop {peaks[2]}")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--model", help="a masked file, or anything `masktool export` takes; the built-in network")
    parser.add_argument("--method", default="lime")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--format", default="png")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare is not None:
        listed = arguments.bare.read_text().splitlines()
        explain_bare(arguments.model, arguments.method, arguments.threads, arguments.samples, listed)
        return
    with tempfile.TemporaryDirectory() as place:
        measure(arguments, Path(place))


if __name__ == "__main__":
    main()
