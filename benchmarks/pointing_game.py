"""Pointing game and energy in the box, on photographs that the model gets right.

    python -m benchmarks.pointing_game MODEL.onnx FOLDER

FOLDER holds photographs, ``labels.json`` ({file: {"index": class}}) and ``boxes.json`` ({file: {"boxes": [[x0, y0,
x1, y1], ...]}}, in pixels of the photograph). A hit is a peak of the map inside any box of the photograph; the energy
is the share of the map's positive part that lies inside the boxes. Results are appended to a JSON-lines file as they
come, and a run that was stopped goes on.
Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, https://arxiv.org/abs/1608.00507.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import masktool
from masktool.explainers.method import load_methods
from masktool.runtime import MaskedSession
from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import prepare

RESAMPLES = 10_000
CONFIDENCE = (2.5, 97.5)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

Record = dict[str, Any]


def box_mask(boxes: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    """Returns a boolean (H, W) image of the union of boxes; a pixel belongs to a box when its centre does."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        inside |= (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
    return inside


def measure(attributions: np.ndarray, inside: np.ndarray, signed: bool) -> Record:
    """Returns hit and energy of one map (H, W); NaN is what the crop left out.

    Where 0 means nothing (``signed`` is False), the energy counts from the map's smallest value.
    """
    zero = 0 if signed else np.nanmin(attributions)
    positive = np.nan_to_num(np.maximum(attributions - zero, 0))
    total = positive.sum()
    peak = np.unravel_index(np.nanargmax(attributions), attributions.shape)
    return {"hit": float(inside[peak]), "energy": float(positive[inside].sum() / total) if total else None}


def baselines(seen: np.ndarray, inside: np.ndarray) -> Iterator[tuple[str, Record]]:
    """Yields the centre point and the share of the boxes, within what the model sees."""
    rows, columns = np.nonzero(seen)
    centre = (int(rows.mean().round()), int(columns.mean().round()))
    share = float(inside[seen].mean())
    yield "centre point", {"hit": float(inside[centre]), "energy": None}
    yield "uniform map (share of the boxes)", {"hit": share, "energy": share}


def explain_photograph(
    session: MaskedSession, path: Path, target: int, boxes: list[list[float]], options: argparse.Namespace
) -> list[Record]:
    """Returns one record per method and baseline; none when the model gets the photograph wrong."""
    preprocessing = session.metadata.preprocessing
    if preprocessing is None:
        raise SystemExit("the model does not say how it is preprocessed: export it with --preprocess")
    photograph = read_image(path)
    prepared = prepare(photograph, preprocessing)
    if int(session.scores(prepared.array).argmax()) != target:
        return []
    inside = box_mask(boxes, (photograph.height, photograph.width))
    seen = np.isfinite(prepared.to_original(np.zeros(preprocessing.size, np.float32)))
    records = [{"method": name, **record} for name, record in baselines(seen, inside)]
    for method in options.methods:
        samples = None if load_methods()[method].samples_option is None else options.samples
        result = masktool.explain(session, photograph, method, target, n_samples=samples, seed=options.seed)
        record = measure(result.attributions, inside, result.signed)
        records.append({"method": method, "passes": result.forward_passes, "seconds": result.seconds, **record})
    return records


def read_results(path: Path, settings: Record) -> dict[str, list[Record]]:
    """Returns what earlier runs with the same settings have written, by photograph."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["file"]: row["records"] for row in rows if row["settings"] == settings}


def interval(values: np.ndarray, seed: int = 0) -> str:
    """Returns mean and 95 % bootstrap interval over photographs."""
    draws = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(draws, CONFIDENCE)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def print_table(records: list[Record], photographs: int) -> None:
    """Prints one row per method and baseline."""
    by_method: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_method[record["method"]].append(record)
    table = Table("method", "pointing game [95 %]", "energy in box [95 %]", "n", "passes", "s / image")
    for method, rows in by_method.items():
        hits = np.array([row["hit"] for row in rows])
        energies = np.array([row["energy"] for row in rows if row["energy"] is not None])
        passes = [row["passes"] for row in rows if "passes" in row]
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        table.add_row(
            method,
            interval(hits),
            interval(energies) if len(energies) else "",
            str(len(rows)),
            f"{np.mean(passes):.0f}" if passes else "",
            f"{np.median(seconds):.1f}" if seconds else "",
        )
    console = Console(width=120)
    console.print(table)
    right = sum(record["method"] == "centre point" for record in records)
    console.print(f"{right} of {photographs} photographs classified right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=sorted(load_methods()))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit", type=int, help="only so many photographs")
    parser.add_argument("--results", type=Path, default=Path("results/pointing_game.jsonl"))
    options = parser.parse_args()
    labels = json.loads((options.folder / "labels.json").read_text())
    boxes = json.loads((options.folder / "boxes.json").read_text())
    paths = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name in boxes)
    paths = paths[: options.limit]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "methods": options.methods,
        "samples": options.samples,
        "seed": options.seed,
        "model": options.model.name,
    }
    done = read_results(options.results, settings)
    with masktool.load(options.model, threads=options.threads) as session, options.results.open("a") as stream:
        for path in paths:
            if path.name not in done:
                target, places = labels[path.name]["index"], boxes[path.name]["boxes"]
                done[path.name] = explain_photograph(session, path, target, places, options)
                row = {"file": path.name, "settings": settings, "records": done[path.name]}
                stream.write(json.dumps(row) + "\n")
                stream.flush()
    print_table([record for path in paths for record in done[path.name]], len(paths))


if __name__ == "__main__":
    main()
