"""Whether ``--masking fill`` takes any network: ``python -m benchmarks.fill_any_network [--folder DATA]``.

Every ``.onnx`` file of the test data and small networks of many kinds (:mod:`benchmarks.fill_graphs`) are exported.
Columns: what a mask of ones changes, what NaN and infinity under the mask change (both relative to max |output|), and
how many images go together: ``any``, proved to be kept apart, or ``one``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import onnx
from rich.console import Console
from rich.table import Table

import masktool
from benchmarks.export_time import DATA
from benchmarks.fill_graphs import build_all
from masktool import MasktoolError

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv"})
SIZE = (48, 192)
"""(height, width) for files that leave theirs open."""


def graphs(folder: Path) -> Iterator[tuple[str, bool, Path | onnx.ModelProto]]:
    """Yields name, whether it is no CNN, and the graph."""
    for path in sorted(folder.rglob("*.onnx")):
        nodes = onnx.load(path, load_external_data=False).graph.node
        yield str(path.relative_to(folder)), not any(node.op_type in CONVOLUTIONS for node in nodes), path
    for name, (no_cnn, model) in build_all().items():
        yield name, no_cnn, model


def measure(model: Path | onnx.ModelProto, target: Path) -> tuple[bool, list[str]]:
    """Exports one graph; returns whether that worked, and its cells."""
    for size in (None, SIZE):
        try:
            metadata = masktool.export(model, target, masking="fill", input_size=size, class_output=None).metadata
        except MasktoolError as error:
            reason = str(error)
            if size is None and "input_size=" in reason:
                continue
            if "class_output=" in reason:
                metadata = masktool.export(model, target, masking="fill", input_size=size, class_output="none").metadata
            else:
                return False, ["refused", "", "", reason]
        figures = [f"{metadata.parity[name]:.1e}" if metadata.parity[name] else "0" for name in ("ones", "invariance")]
        return True, ["exported", *figures, f"{metadata.batching}: {metadata.batching_reason or 'proved'}"]
    raise AssertionError("unreachable")


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=DATA, help="Of .onnx files, searched whole.")
@click.option("--only", help="Part of the names to try.")
def main(folder: Path, only: str | None) -> None:
    """Export every graph with ``fill`` and print a table."""
    table = Table("graph", "CNN", "", "ones", "invariance", "batching, or why not")
    console = Console(width=200)
    tally = {"exported": 0, "refused": 0, "no CNN": 0, "no CNN exported": 0}
    with tempfile.TemporaryDirectory() as place:
        for name, no_cnn, model in graphs(folder):
            if only is not None and only not in name:
                continue
            worked, cells = measure(model, Path(place) / "filled.onnx")
            tally["exported" if worked else "refused"] += 1
            tally["no CNN"] += no_cnn
            tally["no CNN exported"] += no_cnn and worked
            table.add_row(name, "no" if no_cnn else "yes", *cells)
    console.print(table)
    console.print(", ".join(f"{key} {count}" for key, count in tally.items()))


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    main()
