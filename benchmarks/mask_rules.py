"""The cell rule against the published rule of layer masking, and against colours, on real networks.

    python -m benchmarks.mask_rules --data DATA [--network NAME|SHAPES.pt2 ...] [--mode NAME ...] [--cells SIDE ...]

Networks and DATA are those of ``benchmarks.real_networks``. Random cells of an image are removed at the fractions 0,
.1, ... 1, the same ones in every mode; the figures are means over the fractions, with 95 % bootstrap intervals over
images, and the last column is the difference of the first two modes, image by image. A network without a sampler that
is narrower than its stride has one file by both rules: that is said, and only one of them is run. ``--by-fraction``
prints the unchanged predictions at each fraction as well. ``--json FILE`` keeps every image's predictions, and a run
with the same file measures only what is not in there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import masktool
from benchmarks.real_networks import CELLS, NETWORKS, RealNetwork, find_network, read_images, write_plain
from masktool.datasets.dataset import Dataset
from masktool.evaluation.bootstrap import CONFIDENCE, Interval, interval_of_mean
from masktool.evaluation.metrics.missingness.class_entropy import resampled_entropies
from masktool.evaluation.metrics.missingness.removal_measures import ACCURACY, ENTROPY, UNCHANGED, Answers, Measure
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.missingness import FRACTIONS, Missingness
from masktool.evaluation.removal import SegmentChoice
from masktool.evaluation.running import run_part
from masktool.files import atomic_path

MODES: Mapping[str, dict[str, Any]] = {
    "cell": {"masking": "layer", "rule": "cell"},
    "published": {"masking": "layer", "rule": "published"},
    "layer": {"masking": "layer"},
    **{name: {"masking": "fill", "baseline": name} for name in ("blur", "mean", "grey", "black")},
}
"""Options of the export by mode; ``layer`` is the default rule."""
Found = dict[str, Answers]
"""The predictions by mode."""
Records = dict[str, Any]
"""What one exported file predicted, by image."""
RUN = "run"
"""The name of the one model in a record."""


def digest_graph(path: Path) -> str:
    """Returns a digest of what a file computes, whatever its metadata say."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def export_modes(network: RealNetwork, modes: list[str], data: Path, folder: Path) -> dict[str, Path]:
    """Exports a network in every mode, but for those whose file is that of a mode before."""
    source = write_plain(network.read(data), folder / "plain.onnx")
    paths: dict[str, Path] = {}
    for name in modes:
        path = folder / f"{name}.onnx"
        masktool.export(source.model, path, **source.options, **MODES[name])
        twin = next((other for other, known in paths.items() if digest_graph(known) == digest_graph(path)), None)
        if twin:
            print(f"{network.title}: the files of {twin} and {name} are the same", flush=True)
        else:
            paths[name] = path
    return paths


class Study:
    """Predictions on images of which cells are removed, each kept in a file once it is known.

    They are known by what the exported file computes, so that the same graph is not run twice, whatever its mode is
    called: the cells that go depend on the image's name and the seed alone.

    Args:
        options: of the benchmark.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        file = options.json
        self.known: dict[str, Records] = json.loads(file.read_text()) if file and file.exists() else {}

    def predict(self, path: Path, side: int, dataset: Dataset) -> Answers:
        """Returns what one exported file predicts with cells of a side removed."""
        part = {"file": digest_graph(path), "side": side, "fractions": list(self.options.fractions)}
        images = {each.name: each.digest() for each in dataset.images}
        settings = json.dumps({**part, "images": images, "seed": self.options.seed}, sort_keys=True)
        key = hashlib.sha256(settings.encode()).hexdigest()
        if key not in self.known:
            self.known[key] = self.measure(path, side, dataset)
            if self.options.json:
                with atomic_path(self.options.json) as temporary:
                    temporary.write_text(json.dumps(self.known))
        records = self.known[key]
        labels = np.array([np.nan if each["label"] is None else each["label"] for each in records.values()])
        return self.part([], side).answers(records, RUN, "random", labels)

    def part(self, models: list[NamedModel], side: int) -> Missingness:
        """Returns the measurement of models with cells of a side removed at random."""
        options = self.options
        return Missingness(models, SegmentChoice("grid", side), ("random",), options.fractions, seed=options.seed)

    def measure(self, path: Path, side: int, dataset: Dataset) -> Records:
        """Runs one exported file on one thread."""
        started, busy = time.perf_counter(), time.process_time()
        with masktool.load(path, "cpu", threads=1) as session:
            records = dict(run_part(self.part([NamedModel(RUN, session)], side), dataset).images)
        seconds = f"{time.perf_counter() - started:.0f} s, of processors {time.process_time() - busy:.0f}"
        print(f"{path.stem}, {side} px: {len(records)} images, {seconds}", file=sys.stderr, flush=True)
        return records

    def report(self, network: RealNetwork, folder: Path) -> None:
        """Measures one network at all sides of cells, and prints its lines."""
        options = self.options
        paths = export_modes(network, options.mode, options.data, folder)
        dataset = read_images(network.kind, options.data, folder, options.limit, network.labelled)
        for side in options.cells or CELLS[network.kind]:
            found = {name: self.predict(path, side, dataset) for name, path in paths.items()}
            for measure in (UNCHANGED, ENTROPY, *([ACCURACY] if network.labelled else [])):
                print(tabulate(measure, network.title, side, found, options.seed), flush=True)
            if options.by_fraction:
                print_fractions(network.title, side, found, options.seed)


def difference(measure: Measure, first: Answers, second: Answers, seed: int) -> Interval:
    """Returns the difference between two modes, of the same images and of the same resamples."""
    if measure is ENTROPY:
        drawn = resampled_entropies(first.predicted, seed) - resampled_entropies(second.predicted, seed)
        value = measure.figures(first, seed).mean.value - measure.figures(second, seed).mean.value
        spread, tail = drawn.mean(axis=1), (1 - CONFIDENCE) / 2
        low, high = np.quantile(spread - spread.mean(), (tail, 1 - tail))
        return Interval(value, value + float(low), value + float(high), len(first.predicted))
    return interval_of_mean(rates(measure, first) - rates(measure, second), seed)


def rates(measure: Measure, answers: Answers) -> NDArray[np.float64]:
    """Returns each image's share of fractions at which the prediction is unchanged, or right."""
    wanted = answers.labels if measure is ACCURACY else answers.unmasked
    return np.asarray((answers.predicted == wanted[:, None]).mean(axis=1))


def tabulate(measure: Measure, title: str, side: int, found: Found, seed: int) -> str:
    """Returns one line of a table: a figure of each mode, and the difference of the first two."""
    figures = [str(measure.figures(answers, seed).mean) for answers in found.values()]
    if len(found) > 1:
        first, second = list(found.values())[:2]
        figures.append(signed(difference(measure, first, second, seed)))
    return f"| {title} | {measure.name} | {side} | " + " | ".join(figures) + " |"


def signed(figure: Interval) -> str:
    """Returns a difference as text, with its sign."""
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def print_fractions(title: str, side: int, found: Found, seed: int) -> None:
    """Prints the unchanged predictions of every mode at each fraction, and the difference of each from the last."""
    last = list(found)[-1]
    for name, answers in found.items():
        print(f"| {title}, {side} px, {name} | " + " | ".join(
            f"{figure.value:.3f}" for figure in UNCHANGED.figures(answers, seed).by_fraction) + " |")  # fmt: skip
        if name != last:
            same = [(each.predicted == each.unmasked[:, None]).astype(float) for each in (answers, found[last])]
            cells = (signed(interval_of_mean(column, seed)) for column in (same[0] - same[1]).T)
            print(f"| {name} - {last} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", action="append", help=f"may be repeated: {', '.join(NETWORKS)}; [default: all]")
    parser.add_argument("--mode", action="append", choices=MODES, help="[default: cell, published]")
    parser.add_argument("--cells", type=int, nargs="+", help="sides in pixels  [default: by the images]")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--limit", type=int, help="images  [default: all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-fraction", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.mode = options.mode or ["cell", "published"]
    study = Study(options)
    print(f"| network | measure | cells | {' | '.join(options.mode)} | {' - '.join(options.mode[:2])} |")
    print("|" + "---|" * (4 + len(options.mode)))
    for name in options.network or list(NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            study.report(find_network(name), Path(folder))


if __name__ == "__main__":
    main()
