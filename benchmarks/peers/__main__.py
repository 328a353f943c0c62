"""Explanations of one photograph by masktool and by other libraries, side by side, each on one thread of the CPU.

python -m benchmarks.peers --network squeezenet.onnx --image photo.jpg --preprocess caffe --folder peers \\
    --python dianna=envs/dianna/bin/python -o peers.json
python -m benchmarks.peers --table peers.json --into docs/performance.md

Three questions, each by its own stage. ``equal``: the same samples, segments, windows and batch. ``default``: what each
does when asked for nothing. ``quality``: the cost at the fewest samples (doubled from few) whose map has a rank
correlation of .95 with the peer's own map from ten times as many, of another seed. ``--into`` replaces the tables of
the stages that were measured, each between marks of its own. Peers stay open and take turns, so
that whatever else the machine does falls on all. A peer that is not installed is said. Peers of an environment of their
own are started by ``--python PEER=PATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.line_process import ONE_THREAD, LineProcess
from benchmarks.pages import put_table
from benchmarks.peers.problem import AGREEMENT, LONGER
from benchmarks.peers.report import join_reports, write_stage_table
from masktool.interface.bench.machine import describe_machine, read_load
from masktool.interface.bench.spread import Lap, clocks_of

PEERS = (
    *("masktool_layer", "masktool_fill", "captum", "lime", "shap"),
    *("dianna", "openvino_xai", "grad_cam", "xplique"),
)
STAGES = ("equal", "default", "quality")
SAMPLING = ("rise", "lime", "kernel-shap")
"""Methods whose quality a number of samples decides."""


class Peer:
    """A peer in a process of its own.

    Args:
        name: the name of its file.
        python: the interpreter of its environment.
        folder: the folder of the problem.
    """

    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self.version, self.methods, self.reason = "", [], ""
        command = [python, "-m", "benchmarks.peers.worker", name, str(folder)]
        environment = {**os.environ, **ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
        self._process = LineProcess(command, environment, folder / f"{name}.log")
        found = self._process.read()
        if "error" in found:
            self.reason = found["error"]
        else:
            self.version, self.methods = found["version"], found["methods"]

    def explain(self, method: str, samples: int | None, batch: int | None, seed: int = 0) -> dict[str, Any]:
        """Explains once, and returns what it took and the map, or the error."""
        path = self._folder / f"{self.name}.npy"
        request = {"method": method, "samples": samples, "batch": batch, "seed": seed, "map": str(path)}
        found = self._process.ask(request)
        return found if "error" in found else {**found, "attributions": np.load(path)}

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


def measure(peers: Sequence[Peer], method: str, samples: int | None, batch: int | None, repeats: int) -> Iterator[Any]:
    """Yields a row for each peer that has a method; the peers take turns."""
    taking = [peer for peer in peers if method in peer.methods]
    found: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in taking}
    for _ in range(repeats):
        for peer in taking:
            if not any("error" in each for each in found[peer.name]):
                found[peer.name].append(peer.explain(method, samples, batch))
    for peer in taking:
        yield row_of(peer, method, samples, batch, found[peer.name])


def row_of(
    peer: Peer, method: str, samples: int | None, batch: int | None, runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns what the runs of a peer took, as JSON values."""
    row: dict[str, Any] = {"peer": peer.name, "method": method, "samples": samples, "batch": batch}
    if errors := [each["error"] for each in runs if "error" in each]:
        return {**row, "error": errors[0]}
    clocks = clocks_of([Lap(each["wall"], each["cpu"]) for each in runs])
    return {**row, "passes": runs[-1]["passes"], "seconds": clocks}


def find_enough(peer: Peer, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns a row with the cost of the fewest samples whose map agrees with that of ten times as many.

    Where no number of samples that may be tried is enough, the row is of the largest, and says so.
    """
    samples, batch, runs, correlation = options.first, options.batch, [], float("nan")
    while samples * LONGER <= options.most and not correlation >= AGREEMENT:
        runs = [peer.explain(method, samples, batch)]
        longer = peer.explain(method, samples * LONGER, batch, seed=1)
        for each in (*runs, longer):
            if "error" in each:
                return row_of(peer, method, samples, batch, [each])
        correlation = float(spearmanr(runs[0]["attributions"].ravel(), longer["attributions"].ravel()).statistic)
        samples *= 2
    samples //= 2
    runs += [peer.explain(method, samples, batch) for _ in range(options.repeats - 1)]
    reached = correlation >= AGREEMENT
    return {**row_of(peer, method, samples, batch, runs), "correlation": correlation, "reached": reached}


def measure_stages(peers: Sequence[Peer], options: argparse.Namespace) -> Iterator[dict[str, list[Any]]]:
    """Yields the rows of every stage that was asked for so far, after each method."""
    known = dict.fromkeys(each for peer in peers for each in peer.methods)
    found: dict[str, list[Any]] = {stage: [] for stage in options.stage or STAGES}
    for method in options.method or known:
        if "equal" in found:
            found["equal"] += measure(peers, method, options.samples, options.batch, options.repeats)
        if "default" in found:
            found["default"] += measure(peers, method, None, None, options.repeats)
        if "quality" in found and method in SAMPLING:
            taking = [peer for peer in peers if method in peer.methods]
            found["quality"] += [find_enough(peer, method, options) for peer in taking]
        yield found


def measure_peers(options: argparse.Namespace) -> None:
    """Asks all peers, and writes the report after each method."""
    from benchmarks.peers.preparing import prepare_problem

    prepare_problem(options.folder, options.network, options.image, options.preprocess)
    pythons = dict(each.split("=", 1) for each in options.python)
    machine, load = describe_machine(), read_load()
    peers = [Peer(name, pythons.get(name, sys.executable), options.folder.absolute()) for name in options.peer or PEERS]
    for peer in peers:
        print(f"{peer.name}: {peer.version or peer.reason}", file=sys.stderr, flush=True)
    there = [peer for peer in peers if not peer.reason]
    for stages in measure_stages(there, options):
        report = {
            "machine": machine,
            "network": options.network.name,
            "image": options.image.name,
            "settings": {
                "samples": options.samples,
                "batch": options.batch,
                "first": options.first,
                "most": options.most,
            },
            "versions": {peer.name: peer.version for peer in there},
            "missing": {peer.name: peer.reason for peer in peers if peer.reason},
            "stages": stages,
            "load": [load, read_load()],
        }
        options.output.write_text(json.dumps(report, indent=1, default=vars) + "\n", encoding="utf-8")
        print(f"{options.output}: {sum(map(len, stages.values()))} rows", file=sys.stderr, flush=True)
    for peer in peers:
        peer.close()


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="an ONNX file of SqueezeNet 1.1")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--folder", type=Path, default=Path("peers"), help="for the files that all peers read")
    parser.add_argument("--peer", choices=PEERS, action="append", default=[])
    parser.add_argument("--python", metavar="PEER=PATH", action="append", default=[])
    parser.add_argument("--stage", choices=STAGES, action="append", default=[])
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--samples", type=int, default=1000, help="where settings are equal")
    parser.add_argument("--batch", type=int, default=8, help="where settings are equal")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first", type=int, default=50, help="samples that the search for quality begins with")
    parser.add_argument("--most", type=int, default=20_000, help="samples of the longest run for quality")
    parser.add_argument("-o", "--output", type=Path, default=Path("peers.json"))
    parser.add_argument(
        "--table", type=Path, metavar="JSON", nargs="+", help="print the tables of runs, and measure nothing"
    )
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table between the marks of a page")
    options = parser.parse_args(arguments)
    if options.first * LONGER > options.most:
        parser.error(f"--most {options.most} leaves no room for {LONGER} times --first {options.first}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    if options.table is None:
        measure_peers(options)
    report = join_reports([json.loads(each.read_text(encoding="utf-8")) for each in options.table or [options.output]])
    for stage in report["stages"]:
        table = write_stage_table(report, stage)
        if options.into is None:
            print(table)
        else:
            put_table(options.into, f"benchmarks.peers.{stage}", table)


if __name__ == "__main__":
    main()
