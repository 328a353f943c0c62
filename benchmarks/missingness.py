"""Missingness bias where the objects are known: the built-in network, layer masking beside its rivals.

    python -m benchmarks.missingness [--network shapes.pt2 ...]

Each network is a file that ``scripts/train_demo_model.py --only train`` writes; without one it is the built-in network.
The modes are layer masking by both rules for samplers (cell and published), layer masking by the cell rule without its
fill (missing places stay 0), and black and grey pixels. The pictures are drawn afresh, with exact object masks; LIME
runs on the first of them, and the shape leak, where layer masking and grey lie a few points from chance, needs more.
Prints the tables of ``masktool evaluate missingness`` and ``masktool evaluate lime-alignment``, and for each inequality
whether it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from PIL import Image
from rich.console import Console
from rich.table import Table as Grid

import masktool
from masktool import demo
from masktool.contract import FUNCTION_DOMAIN
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.demo import shapes
from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Findings
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.lime_alignment import LimeAlignment
from masktool.evaluation.parts.missingness import Missingness
from masktool.evaluation.running import run_part
from masktool.exporters.presets import preprocessing_for
from masktool.exporters.sources import load_source

CELL, PUBLISHED, NO_FILL, BLACK, GREY = "cell", "published", "no fill", "black", "grey"
RULES = (CELL, PUBLISHED)
LEAK = "shape-leak"
WITHOUT_FILL = """
<domain: "masktool", opset_import: ["" : 18]>
NeighborFill <channels> (x, mask, weight, box) => (filled) {
    filled = Mul (x, mask)
}
"""
INEQUALITIES = (
    ("class-entropy", "random", (CELL, PUBLISHED, GREY, BLACK)),
    ("class-entropy", "random", (CELL, NO_FILL)),
    ("unchanged", "random", (CELL, PUBLISHED, GREY, BLACK)),
    ("unchanged", "random", (CELL, NO_FILL)),
    (LEAK, "|accuracy - chance|", (BLACK, CELL)),
    (LEAK, "|accuracy - chance|", (BLACK, PUBLISHED)),
    (LEAK, "|accuracy - chance|", (GREY, CELL)),
    ("alignment", "alignment", (CELL, GREY, BLACK)),
    ("alignment", "alignment", (PUBLISHED, GREY, BLACK)),
)
"""Table, column, and the modes from the largest figure to the smallest."""


def remove_fill(path: Path, target: Path) -> None:
    """Writes a masked file whose fill leaves missing places at 0."""
    model = onnx.load(path)
    function = next(each for each in model.functions if each.domain == FUNCTION_DOMAIN and each.name == "NeighborFill")
    function.CopyFrom(onnx.parser.parse_function(WITHOUT_FILL))
    onnx.save(model, target)


def export_modes(network: Path, folder: Path) -> dict[str, Path]:
    """Exports one network in every mode."""
    paths = {name: folder / f"{name.replace(' ', '-')}.onnx" for name in (*RULES, NO_FILL, BLACK, GREY)}
    for name in (*RULES, BLACK, GREY):
        source = load_source(network)
        hiding: dict[str, Any] = {"masking": "fill", "baseline": name}
        if name in RULES:
            hiding = {"masking": "layer", "rule": name}
        masktool.export(
            source,
            paths[name],
            **hiding,
            preprocessing=preprocessing_for(source.model, None, mean=shapes.MEAN, std=shapes.STD),
            output_kind="logits",
            labels=shapes.LABELS,
        )
    remove_fill(paths[CELL], paths[NO_FILL])
    return paths


def draw_dataset(seed: int, count: int, folder: Path) -> Dataset:
    """Draws pictures that the network was not trained on, with their objects."""
    pictures, samples = shapes.draw(seed, count), []
    for index, (image, label, inside) in enumerate(zip(*pictures, strict=True)):
        path = folder / f"{index:04d}.png"
        Image.fromarray(image).save(path)
        samples.append(DatasetImage(path.name, path, int(label), object_mask=inside))
    return Dataset(tuple(samples))


@contextlib.contextmanager
def open_models(paths: dict[str, Path]) -> Iterator[list[NamedModel]]:
    """Opens all modes on one thread each."""
    with contextlib.ExitStack() as stack:
        yield [
            NamedModel(name, stack.enter_context(masktool.load(path, "cpu", threads=1))) for name, path in paths.items()
        ]


def figures_of(findings: Findings) -> dict[tuple[str, str, str], Interval]:
    """Returns every interval by table, column and row."""
    return {
        (table.name, column, str(row[0])): cell
        for table in findings.tables
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if isinstance(cell, Interval)
    }


def report(name: str, figures: dict[tuple[str, str, str], Interval]) -> None:
    """Prints every inequality with its figures."""
    grid = Grid("measure", "figures, 95 % intervals", "holds", title=name)
    for table, column, order in INEQUALITIES:
        found = [figures[table, column, mode] for mode in order]
        holds = all(first.value > second.value for first, second in itertools.pairwise(found))
        words = "  >  ".join(f"{mode} {figure}" for mode, figure in zip(order, found, strict=True))
        grid.add_row(table, words, "yes" if holds else "NO")
    Console(width=160).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, action="append", help="a .pt2 file; may be repeated")
    parser.add_argument("--pictures", type=int, default=200, help="parts of which are removed")
    parser.add_argument("--lime-pictures", type=int, default=40)
    parser.add_argument("--leak-pictures", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=777, help="of the pictures, and of all random choices")
    options = parser.parse_args()
    for network in options.network or [demo.program_path()]:
        with tempfile.TemporaryDirectory() as folder, open_models(export_modes(network, Path(folder))) as models:
            samples = draw_dataset(options.seed, options.leak_pictures, Path(folder)).images
            report("/".join(network.parts[-2:]), measure(models, samples, options))


def measure(
    models: list[NamedModel], samples: Sequence[DatasetImage], options: argparse.Namespace
) -> dict[tuple[str, str, str], Interval]:
    """Returns the figures of one network."""
    explained = [model for model in models if model.name != NO_FILL]
    parts = (
        (Missingness(models, orders=("random",), fractions=(0.0,), seed=options.seed), len(samples)),  # for the leak
        (Missingness(models, orders=("random",), seed=options.seed), options.pictures),
        (LimeAlignment(explained, seed=options.seed), options.lime_pictures),
    )
    figures: dict[tuple[str, str, str], Interval] = {}
    for position, (part, count) in enumerate(parts):
        found = figures_of(run_part(part, Dataset(tuple(samples[:count]))).findings)
        figures |= {key: value for key, value in found.items() if position == 0 or key[0] != LEAK}
    return figures


if __name__ == "__main__":
    main()
