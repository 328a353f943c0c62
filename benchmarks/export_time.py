"""How long an export takes beside another version's: ``python -m benchmarks.export_time --against CHECKOUT``.

Two worker processes, one on each version, export the same graphs in turn, on one core, so that ONNX Runtime has one
thread and none that waits in a loop; what is printed is CPU time of the export alone (imports and the first export are
left out), its ratio and the median over all graphs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

PROJECT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MASKTOOL_TEST_DATA") or PROJECT.parent / "shared" / "data")
WORKER = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
import masktool
print(masktool.__file__, flush=True)
for line in sys.stdin:
    source, target = json.loads(line)
    started, wall, error = time.process_time(), time.perf_counter(), None
    try:
        masktool.export(source, target)
    except masktool.MasktoolError as refusal:
        error = str(refusal)
    figures = [time.process_time() - started, time.perf_counter() - wall, error]
    print(json.dumps(figures), flush=True)
"""


class Worker:
    """A process that exports with one version of masktool."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", WORKER]
        self.process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        place = Path(self.process.stdout.readline().strip())
        if not place.is_relative_to(checkout):
            raise SystemExit(f"{place} is not the masktool in {checkout}")

    def export(self, source: Path, target: Path) -> tuple[float, float, str | None]:
        """Exports and returns CPU seconds, wall seconds, and the error of a refusal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(source), str(target)]) + "\n")
        self.process.stdin.flush()
        cpu, wall, error = json.loads(self.process.stdout.readline())
        return cpu, wall, error


@click.command()
@click.option("--against", type=click.Path(path_type=Path, exists=True), required=True, help="Checkout of the other.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=DATA / "onnx", help="Of .onnx files.")
@click.option("--repeats", default=5, show_default=True, help="Of each export; the median counts.")
def main(against: Path, folder: Path, repeats: int) -> None:
    """Export every graph with both versions in turn."""
    ours, other = Worker(PROJECT), Worker(against.resolve())
    ratios = []
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "masked.onnx"
        for source in sorted(folder.resolve().glob("*.onnx")):  # the workers run in other directories
            figures: list[list[tuple[float, float, str | None]]] = [[], []]
            for repeat in range(repeats + 1):  # the first warms up
                for side, worker in zip(figures, (ours, other), strict=True):
                    found = worker.export(source, target)
                    if repeat:
                        side.append(found)
            if any(error for side in figures for _, _, error in side):
                click.echo(f"{source.name:40} refused: {figures[0][0][2]} | {figures[1][0][2]}")
                continue
            cpu = [statistics.median(each[0] for each in side) for side in figures]
            wall = [statistics.median(each[1] for each in side) for side in figures]
            pairs = [a[0] / b[0] for a, b in zip(*figures, strict=True)]
            ratios.append(statistics.median(pairs))
            spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
            click.echo(
                f"{source.name:40} CPU {cpu[0]:6.3f} s / {cpu[1]:6.3f} s = {ratios[-1]:.2f} ({spread})"
                f"   wall {wall[0]:6.3f} / {wall[1]:6.3f}"
            )
    if not ratios:
        raise click.ClickException(f"{folder}: nothing that both versions export")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    click.echo(f"median of {len(ratios)} graphs: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
