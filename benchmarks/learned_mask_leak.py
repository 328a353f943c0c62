"""Masks that are learned through layer masking: where the gradient is taken, at the cut mask or at one that leaks.

    python -m benchmarks.learned_mask_leak                                     # the built-in network, drawn pictures
    python -m benchmarks.learned_mask_leak --network squeezenet.onnx --preprocess caffe --photographs FOLDER

FOLDER holds photographs, ``labels.json`` and ``boxes.json``, as for ``benchmarks.learned_masks``; those that the
network gets right are explained. Drawn pictures come from several seeds, with exact objects. Neither method draws
anything by its own, so that the seeds are the pictures'. Every row is judged by layer masking: whether the class
survives the mask cut at .5. Then come the overlap with the object (the map cut so that it covers as much), the share
of the peak pixels on it, the share of the mask's weight on it, the mask's size cut at .5, and processor seconds for an
image. The row ``fill`` learned behind the method's own baseline. Intervals are 95 % bootstraps over images; the last
table holds the differences from a leak of 0, image by image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import masktool
from benchmarks.learned_masks import choose_photographs
from masktool import demo
from masktool.contract import Preprocessing
from masktool.demo import shapes
from masktool.demo.score import measure_iou
from masktool.evaluation.bootstrap import interval_of_mean
from masktool.evaluation.scene import fill_boxes
from masktool.explainers.explanation import Explanation
from masktool.explainers.mask_figures import cut_masks
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

METHODS = ("neuromask", "extremal")
FILL = "fill"
COLUMNS = ("kept", "IoU", "pointing", "weight inside", "area, cut", "s")
Figures = dict[str, list[float]]
"""One value per image, by column."""


class Known(NamedTuple):
    """An image whose object is known: its pixels, (H, W) bool."""

    image: Image.Image
    inside: NDArray[np.bool_]


def draw_known(seeds: Sequence[int], count: int) -> list[Known]:
    """Draws ``count`` pictures of every seed."""
    drawn = (shapes.draw(seed, count) for seed in seeds)
    return [
        Known(Image.fromarray(picture), inside)
        for each in drawn
        for picture, inside in zip(each.images, each.object_masks, strict=True)
    ]


def read_known(session: MaskedSession, folder: Path, limit: int) -> list[Known]:
    """Reads the first photographs that the network gets right, with their boxes."""
    boxes = json.loads((folder / "boxes.json").read_text())
    known = []
    for path in choose_photographs(session, folder, limit):
        image = read_image(path)
        inside = fill_boxes(tuple(map(tuple, boxes[path.name]["boxes"])), (image.height, image.width))
        known.append(Known(image, inside))
    return known


def measure(session: MaskedSession, found: Explanation, known: Known) -> Iterator[float]:
    """Yields what one mask is judged by, column by column but for the time."""
    prepared = prepare(known.image, session.metadata.preprocessing)
    cut = cut_masks(found.model_attributions)
    yield float(session.scores(prepared.array, cut[None, None]).argmax() == found.target)
    mask = found.attributions
    yield measure_iou(mask, known.inside)
    yield float(known.inside[mask == np.nanmax(mask)].mean())
    weight = np.nan_to_num(mask)
    yield float(weight[known.inside].sum() / weight.sum()) if weight.any() else 0.0
    yield float(cut.mean())


def measure_all(session: MaskedSession, known: Sequence[Known], method: str, **settings: Any) -> Figures:
    """Returns the figures of one method with one way of hiding, over all images, which share batches."""
    started = time.process_time()
    found = masktool.explain_images(session, [each.image for each in known], method, **settings)
    seconds = (time.process_time() - started) / len(known)
    rows = [(*measure(session, *each), seconds) for each in zip(found, known, strict=True)]
    return {column: list(values) for column, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


def print_table(figures: dict[tuple[str, str], Figures]) -> None:
    """Prints means with intervals as Markdown, a row for each method and way."""
    print("\n| method | leak | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 2))
    for (method, way), found in figures.items():
        cells = []
        for column in COLUMNS:
            values = found[column]
            cells.append(f"{np.mean(values):.1f}" if column == "s" else str(interval_of_mean(values)))
        print(f"| {method} | {way} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, default=demo.program_path(), help="[default: the built-in one]")
    parser.add_argument("--preprocess", help="of the network, for photographs: caffe, tf, imagenet or a file")
    parser.add_argument("--photographs", type=Path, help="folder; without it, pictures are drawn")
    parser.add_argument("--limit", type=int, default=12, help="photographs")
    parser.add_argument("--pictures", type=int, default=24, help="drawn with each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="of the drawn pictures")
    parser.add_argument("--leaks", type=float, nargs="+", default=(0, 0.02, 0.1))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--json", type=Path, help="file for the figures of every image")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        drawn = options.photographs is None
        masktool.export(options.network, path, gradient="logit", **(of_drawn() if drawn else of_photographs(options)))
        with masktool.load(path, "cpu", threads=1) as session:
            known = (
                draw_known(options.seeds, options.pictures)
                if drawn
                else read_known(session, options.photographs, options.limit)
            )
            report(session, known, options)


def of_drawn() -> dict[str, Any]:
    """Returns the options of the export of a network of the drawn shapes."""
    size = (shapes.SIZE, shapes.SIZE)
    preprocessing = Preprocessing(size, "shortest", shapes.SIZE, mean=shapes.MEAN, std=shapes.STD)
    return {"preprocessing": preprocessing, "labels": shapes.LABELS, "output_kind": "logits"}


def of_photographs(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of the export of a network of photographs."""
    return {"preprocessing": options.preprocess}


def report(session: MaskedSession, known: Sequence[Known], options: argparse.Namespace) -> None:
    """Measures every way of hiding, and prints the tables; what is done stays in the file of figures."""
    figures: dict[tuple[str, str], Figures] = {}
    for method in options.methods:
        ways = {f"{leak:g}": {"through": "layer", "leak": leak} for leak in options.leaks} | {FILL: {"through": FILL}}
        for way, settings in ways.items():
            figures[method, way] = measure_all(session, known, method, **settings)
            if options.json:
                options.json.write_text(json.dumps({" ".join(key): value for key, value in figures.items()}))
            print(f"{method}, {way}: {len(known)} images", flush=True)
    print_table(figures)
    if 0 in options.leaks:
        print_table({key: subtract(value, figures[key[0], "0"]) for key, value in figures.items() if key[1] != "0"})


def subtract(figures: Figures, others: Figures) -> Figures:
    """Returns the differences between two ways, image by image."""
    return {column: [a - b for a, b in zip(figures[column], others[column], strict=True)] for column in COLUMNS}


if __name__ == "__main__":
    main()
