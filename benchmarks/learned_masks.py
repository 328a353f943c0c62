"""Learned masks on photographs that the model gets right: does the class survive, and is the mask where the object is?

    masktool export squeezenet.onnx -o squeezenet.gradient.onnx --masking fill --preprocess caffe --gradient logit
    python -m benchmarks.learned_masks squeezenet.gradient.onnx FOLDER

FOLDER holds photographs, ``labels.json`` ({file: {"index": class}}) and ``boxes.json`` ({file: {"boxes": [[x0, y0, x1,
y1], ...]}}, in pixels of the photograph). ``--masking fill`` makes the smallest graph; what hides here is the
method's own baseline. Peaks that several pixels share count with the share of them that lies inside a box. The last
picture of every group of three is the last method's; masks are drawn as light, what they hide is dark.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import masktool
from masktool.commands.options import progress
from masktool.evaluation.scene import fill_boxes
from masktool.explainers.explanation import Explanation
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

METHODS = ("neuromask", "extremal")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TILE = 144
"""Side of one picture on the contact sheet, in pixels."""
COLUMNS = 4
"""Photographs beside each other."""
HIDDEN = 0.15
"""Brightness that hidden parts keep on the contact sheet."""
BOX_COLOUR = (255, 220, 0)


def choose_photographs(session: MaskedSession, folder: Path, limit: int) -> list[Path]:
    """Returns the first photographs with boxes that the model gets right."""
    labels = json.loads((folder / "labels.json").read_text())
    boxes = json.loads((folder / "boxes.json").read_text())
    chosen: list[Path] = []
    for path in sorted(each for each in folder.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES):
        if path.name in boxes and len(chosen) < limit:
            prepared = prepare(read_image(path), session.metadata.preprocessing)
            if int(session.scores(prepared.array).argmax()) == labels[path.name]["index"]:
                chosen.append(path)
    return chosen


def measure(found: Explanation, inside: np.ndarray) -> dict[str, float]:
    """Returns what one mask is judged by; ``inside`` (H, W) says which pixels lie in a box."""
    mask = found.attributions
    peaks = mask == np.nanmax(mask)
    energy = np.nan_to_num(mask)
    return {
        "kept, soft mask": found.quality["kept_soft"],
        "kept, mask cut": found.quality["kept_cut"],
        "pointing game": float(inside[peaks].mean()),
        "energy in boxes": float(energy[inside].sum() / energy.sum()),
        "area": found.quality["area_soft"],
        "area, cut": found.quality["area_cut"],
        "steps": found.quality["iterations"],
        "s / image": found.seconds,
    }


def draw_tile(photograph: Image.Image, mask: np.ndarray | None, boxes: list[list[float]]) -> Image.Image:
    """Returns one picture of the contact sheet: the photograph with its boxes, or what a mask keeps of it."""
    pixels = np.asarray(photograph, np.float32)
    if mask is not None:
        pixels = pixels * (HIDDEN + (1 - HIDDEN) * np.nan_to_num(mask)[:, :, None])
    tile = Image.fromarray(pixels.astype(np.uint8))
    if mask is None:
        for box in boxes:
            ImageDraw.Draw(tile).rectangle(box, outline=BOX_COLOUR, width=2)
    return tile.resize((TILE, TILE), Image.Resampling.LANCZOS)


def draw_sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Lays the pictures of each photograph beside each other, several photographs to a line."""
    width = len(rows[0]) * TILE + TILE // 8
    lines = -(-len(rows) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, lines * TILE), "white")
    for index, tiles in enumerate(rows):
        for place, tile in enumerate(tiles):
            sheet.paste(tile, (index % COLUMNS * width + place * TILE, index // COLUMNS * TILE))
    return sheet


def print_table(records: dict[str, list[dict[str, float]]], model: Path) -> None:
    """Prints the mean of every figure, by method, over the photographs done so far."""
    columns = list(next(iter(records.values()))[0])
    table = Table("method", "n", *columns, title=model.name)
    for method, rows in records.items():
        if rows:
            means = (f"{np.mean([row[column] for row in rows]):.3g}" for column in columns)
            table.add_row(method, str(len(rows)), *means)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--limit", type=int, default=20, help="photographs")
    parser.add_argument("--together", type=int, default=4, help="photographs in one batch")
    parser.add_argument("--steps", type=int, help="of every method  [default: the method's own]")
    parser.add_argument("--set", type=json.loads, default={}, help="options of every method, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, default=Path("results/learned_masks.png"))
    options = parser.parse_args()
    boxes = json.loads((options.folder / "boxes.json").read_text())
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    records: dict[str, list[dict[str, float]]] = {method: [] for method in options.methods}
    tiles: dict[Path, list[Image.Image]] = {}
    with masktool.load(options.model, threads=options.threads) as session:
        paths = choose_photographs(session, options.folder, options.limit)
        for path in paths:
            tiles[path] = [draw_tile(read_image(path), None, boxes[path.name]["boxes"])]
        for method in options.methods:
            for start in range(0, len(paths), options.together):
                group = paths[start : start + options.together]
                for path, found in zip(group, explain_group(session, group, method, options), strict=True):
                    assert isinstance(found.image, Image.Image)
                    inside = fill_boxes(tuple(map(tuple, boxes[path.name]["boxes"])), found.image_size)
                    records[method].append(measure(found, inside))
                    tiles[path].append(draw_tile(found.image, found.attributions, []))
                draw_sheet(list(tiles.values())).save(options.sheet)
                print_table(records, options.model)


def explain_group(
    session: MaskedSession, paths: list[Path], method: str, options: argparse.Namespace
) -> list[Explanation]:
    """Learns the masks of several photographs."""
    values: dict[str, Any] = options.set
    return masktool.explain_images(session, list(paths), method, n_samples=options.steps, progress=progress, **values)


if __name__ == "__main__":
    main()
