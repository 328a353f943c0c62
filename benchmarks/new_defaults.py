"""Do the quick defaults explain as well as the long ones did? Old and new settings on the same photographs.

    python -m benchmarks.new_defaults squeezenet.onnx FOLDER --preprocess caffe -o new_defaults.jsonl

FOLDER holds photographs, ``labels.json`` ({file: {"index": class}}) and ``boxes.json`` ({file: {"boxes": [[x0, y0, x1,
y1], ...]}}, in pixels of the photograph); those that the network gets right are explained, for their class. Insertion
and deletion are measured through layer masking, pointing game, energy and average precision against the boxes. Columns
are means; the last line of each method is the mean of the differences between photographs, new less old, with its 95 %
bootstrap interval. Learned masks hide with their own baseline, so they run on the file masked by ``fill``, which is
smaller. Every map is kept as a line of the output, and a run goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import masktool
from benchmarks.learned_masks import choose_photographs
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.evaluation.metrics.localisation.energy import energy_inside
from masktool.evaluation.metrics.localisation.pixel_average_precision import (
    average_precision,
    count_pixels,
    unpack_counts,
)
from masktool.evaluation.metrics.localisation.pointing_game import point
from masktool.evaluation.scene import fill_boxes
from masktool.explainers.explanation import Explanation
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

OLD: dict[str, dict[str, Any]] = {
    "rise": {"n_masks": 4000, "estimator": "mean"},
    "lime": {"n_samples": 1000, "alpha": 1.0, "sampling": "independent"},
    "extremal": {"n_iterations": 800, "learning_rate": 0.01, "final_rate": 1.0},
    "neuromask": {"grid_size": None, "n_iterations": 2000, "learning_rate": 0.03, "final_rate": 1.0},
}
"""What the methods did when asked for nothing, before they stopped early."""
LEARNED = ("extremal", "neuromask")
SIGNED = ("lime",)
"""Methods whose 0 separates what speaks for the class from what speaks against it."""
FIGURES = ("insertion", "deletion", "pointing game", "energy", "average precision", "passes", "seconds")
SETTINGS = ("old", "new")


def judge(session: MaskedSession, found: Explanation, inside: np.ndarray, metric: InsertionDeletion) -> dict[str, Any]:
    """Returns the figures of one map; ``inside`` (H, W) says which pixels of the photograph lie in a box."""
    assert isinstance(found.target, int)
    assert isinstance(found.image, Image.Image)
    prepared = prepare(found.image, session.metadata.preprocessing)
    maps = {"map": np.nan_to_num(found.model_attributions.astype(np.float64))}
    trial = Trial(
        name="photograph",
        image=prepared.array,
        layout=session.layout,
        maps=maps,
        redraw=lambda name, _: maps[name],
        target=found.target,
        answer=session.scores,
        masking=session.metadata.masking,
        batch=session.batch_size(None),
        seed=0,
    )
    attributions = np.nan_to_num(found.attributions.astype(np.float64))  # NaN where the crop left the photograph out
    counts = count_pixels(attributions, inside)
    return {
        **metric.measure(trial)["map"].figures,
        "pointing game": point(attributions, inside),
        "energy": energy_inside(attributions, inside, found.method in SIGNED),
        "average precision": None if counts is None else float(average_precision(unpack_counts(counts)[None])[0]),
        "passes": found.forward_passes,
        "seconds": found.seconds,
    }


def explain_all(sessions: dict[str, MaskedSession], paths: list[Path], options: argparse.Namespace) -> None:
    """Explains every photograph by every method with both settings, and appends a line for each."""
    boxes = json.loads((options.folder / "boxes.json").read_text())
    metric = InsertionDeletion(n_steps=options.steps)
    for path in paths:
        for method in options.methods:
            for name in SETTINGS:
                if (method, name, path.name) in set(map(key_of, read_lines(options.output))):
                    continue
                settings = OLD[method] if name == "old" else {}
                session = sessions["learned" if method in LEARNED else "layer"]
                (found,) = masktool.explain_images(session, [path], method, **settings)
                inside = fill_boxes(tuple(map(tuple, boxes[path.name]["boxes"])), found.image_size)
                figures = judge(sessions["layer"], found, inside, metric)
                line = {"method": method, "settings": name, "photograph": path.name, **figures}
                with options.output.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields what is known already."""
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def key_of(line: dict[str, Any]) -> tuple[str, str, str]:
    """Returns which map a line is of."""
    return line["method"], line["settings"], line["photograph"]


def print_table(lines: list[dict[str, Any]], title: str) -> None:
    """Prints the means of both settings and their difference, over the photographs that have both."""
    table = Table("method", "settings", "n", *FIGURES, title=title)
    for method in OLD:
        of_settings = [
            {line["photograph"]: line for line in lines if line["method"] == method and line["settings"] == name}
            for name in SETTINGS
        ]
        both = sorted(set(of_settings[0]) & set(of_settings[1]))
        if not both:
            continue
        values = np.array(
            [[[known[photo][figure] for figure in FIGURES] for photo in both] for known in of_settings], np.float64
        )
        for name, figures in zip(SETTINGS, values, strict=True):
            table.add_row(method, name, str(len(both)), *(f"{mean:.3f}" for mean in np.nanmean(figures, axis=0)))
        differences = (values[1] - values[0]).T
        table.add_row(method, "new - old", str(len(both)), *(str(interval_of_mean(each)) for each in differences))
    Console(width=190).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--methods", nargs="+", default=list(OLD), choices=list(OLD))
    parser.add_argument("--limit", type=int, default=40, help="photographs")
    parser.add_argument("--steps", type=int, default=30, help="of insertion and of deletion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("new_defaults.jsonl"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("layer", "learned")}
        masktool.export(options.network, files["layer"], preprocessing=options.preprocess)
        masktool.export(
            options.network, files["learned"], masking="fill", preprocessing=options.preprocess, gradient="logit"
        )
        with (
            masktool.load(files["layer"], threads=options.threads) as layer,
            masktool.load(files["learned"], threads=options.threads) as learned,
        ):
            paths = choose_photographs(layer, options.folder, options.limit)
            explain_all({"layer": layer, "learned": learned}, paths, options)
    print_table(list(read_lines(options.output)), options.network.name)


if __name__ == "__main__":
    main()
