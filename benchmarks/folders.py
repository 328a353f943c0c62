"""What ``masktool explain DIR -o OUT`` costs beside the same passes in a bare loop, and what memory it takes.

Draws small pictures of the kind that the built-in network was trained on, explains the folder by the command, with
files written, and the same pictures in a loop over one open session that reads, prepares, masks, runs and attributes,
and writes nothing. Both are processes of their own with their start counted; the loop takes the first half of the
pictures before the command and the second half after it, so that both meet the same load. ``--loop N`` lets the loop
take N of the pictures, evenly spread; its two starts, of 2 s each, are then spread over fewer. Memory is the peak of
the resident memory of the command at 200 pictures and at all of them.

    python -m benchmarks.folders --photographs 2000 --loop 500 --method lime
    python -m benchmarks.folders --model squeezenet.onnx --photographs 200 --method occlusion
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


def explain_bare(arguments: argparse.Namespace, paths: Sequence[str]) -> None:
    """Explains photographs in a loop, and keeps nothing."""
    pairs = (assignment.split("=", 1) for assignment in arguments.set)
    options: dict[str, Any] = {name: json.loads(value) for name, value in pairs}
    with load(arguments.model, "cpu", threads=arguments.threads) as session:
        for path in paths:
            explain(session, path, arguments.method, n_samples=arguments.samples, **options)


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
    found += [word for assignment in arguments.set for word in ("--set", assignment)]
    return found + ([] if arguments.samples is None else ["--samples", str(arguments.samples)])


def measure(arguments: argparse.Namespace, place: Path) -> None:
    """Measures both, and prints what they took."""
    paths = draw_folder(place / "all", arguments.photographs)
    fewer = draw_folder(place / "few", FEW) if len(paths) > FEW else []
    count, looped = len(paths), min(arguments.loop or len(paths), len(paths))
    taken = [paths[index * count // looped] for index in range(looped)]
    halves = [place / "first.txt", place / "second.txt"]
    for listed, part in zip(halves, (taken[: looped // 2], taken[looped // 2 :]), strict=True):
        listed.write_text("\n".join(map(str, part)))
    few = run_process(folder_command(arguments, place / "few", place / "few-out")) if fewer else None
    before = run_process(bare_command(arguments, halves[0]))
    whole = run_process(folder_command(arguments, place / "all", place / "all-out"))
    bare = before + run_process(bare_command(arguments, halves[1]))
    print(f"{count} photographs of 64 x 64, {arguments.method}, {arguments.format}, {arguments.threads} thread(s)")
    print(f"the loop: {looped} of them")
    print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name, cost, images in (("explain DIR -o OUT", whole, count), ("bare loop", bare, looped)):
        print(f"{name:20} {cost.seconds / images:.3f} s an image, {cost.cpu_seconds / images:.3f} s of CPU time")
    clock, cpu = (
        ours / count / (theirs / looped)
        for ours, theirs in ((whole.seconds, bare.seconds), (whole.cpu_seconds, bare.cpu_seconds))
    )
    print(f"ratio {clock:.3f} on the clock, {cpu:.3f} in CPU time")
    print(f"peak memory: {whole.peak / MIB:.0f} MiB at {count} photographs, of the loop {bare.peak / MIB:.0f}")
    if few is not None:
        print(f"peak memory: {few.peak / MIB:.0f} MiB at {FEW} photographs")


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--loop", type=int, help="pictures of the bare loop; all")
    parser.add_argument("--model", help="a masked file, or anything `masktool export` takes; the built-in network")
    parser.add_argument("--method", default="lime")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=JSON", help="an option of the method")
    parser.add_argument("--format", default="png")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare is not None:
        explain_bare(arguments, arguments.bare.read_text().splitlines())
        return
    with tempfile.TemporaryDirectory() as place:
        measure(arguments, Path(place))


if __name__ == "__main__":
    main()
