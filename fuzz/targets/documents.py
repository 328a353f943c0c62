"""Texts and JSON documents: labels, preprocessing, boxes, a data set's labels, an evaluation's results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.children import Bounds
from fuzz.mutations import mutate_bytes, mutate_json
from fuzz.targets.masked import code_of
from fuzz.targets.target import TARGETS, Target

PREPROCESSING = {
    "size": [32, 32],
    "resize": "shortest",
    "resize_to": 36,
    "interpolation": "bilinear",
    "channel_order": "RGB",
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "layout": "NCHW",
}
LABELS: Any = ["cat", "dog", "bird"]
LABELS_BY_INDEX = {"0": ["n01", "cat"], "1": ["n02", "dog"]}
BOXES = {"a.jpg": {"size": [40, 30], "boxes": [[1, 2, 20, 21]], "label": 1}, "b.jpg": [[0, 0, 5, 5]]}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
    "categories": [{"id": 7, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 12], "segmentation": [[1, 2, 10, 2, 10, 12]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "bbox": [1, 2, 3, 4],
            "segmentation": {"size": [30, 40], "counts": [1200]},
        },
    ],
}
RESULT = {
    "schema_version": 1,
    "part": "missingness",
    "title": "Removal",
    "settings": {"seed": 0},
    "tables": [{"title": "t", "columns": ["mode", "n"], "rows": [["layer", 3]]}],
    "charts": ["chart.png"],
    "findings": ["x"],
    "images": {"count": 3},
    "problems": [],
}
DOCUMENTS: tuple[Any, ...] = (PREPROCESSING, LABELS, LABELS_BY_INDEX, BOXES, COCO, RESULT)


def draw(rng: np.random.Generator) -> tuple[bytes, str]:
    """Mutates one of the documents as a tree, or its bytes; now and then in another encoding."""
    document = DOCUMENTS[int(rng.integers(len(DOCUMENTS)))]
    if rng.random() < 0.25:
        text = "image,label\na.jpg,1\nb.jpg,cat\n" if rng.random() < 0.5 else json.dumps(document)
        encoding = str(rng.choice(["utf-8", "utf-16", "utf-8-sig", "latin-1"]))
        return mutate_bytes(text.encode(encoding), rng), str(rng.choice([".json", ".csv", ".txt"]))
    return mutate_json(document, rng).encode("utf-8", "surrogatepass"), ".json"


def run(path: Path, option: int) -> str:
    """Reads it by one of the readers."""
    reader = READERS[option % len(READERS)]
    return reader(path) or ""


def use_preprocessing(path: Path) -> None:
    """As a preprocessing file."""
    from masktool.exporters.presets import read_preprocessing

    read_preprocessing(path, (32, 32))


def use_labels(path: Path) -> str:
    """As class names."""
    from masktool.exporters.presets import labels_from

    return "" if all(isinstance(label, str) for label in labels_from(path)) else "a label that is no text"


def use_objects(path: Path) -> None:
    """As boxes, COCO or whatever it is."""
    from masktool.datasets.formats import read_objects

    read_objects(path)


def use_dataset_labels(path: Path) -> None:
    """As the labels of a data set."""
    from masktool.datasets.labels import read_label_entries

    read_label_entries(path)


def use_report(path: Path) -> str:
    """As the results of an evaluation, beside nothing else."""
    folder = path.parent / "results"
    folder.mkdir()
    path.replace(folder / "missingness.json")
    return code_of(["evaluate", "report", str(folder)])


READERS: tuple[Callable[[Path], str | None], ...] = (
    *(use_preprocessing, use_labels, use_objects, use_dataset_labels, use_report),
)

TARGETS["documents"] = Target(draw, run, Bounds(seconds=15, megabytes=2000))
