"""What both benchmarks of masking models do: train and keep them, read their maps, ask the classifier, draw."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import SALIENCY_MAP, Preprocessing
from masktool.explainers.mask_figures import CUT
from masktool.files import atomic_path
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.train import CHECKPOINT_SUFFIX, train_masker
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

BATCH = 64
SHEET_PICTURES = 24
SHEET_COLUMNS = 3
SHEET_SIDE = 128
"""Of one picture on the contact sheet, in pixels."""
Maps = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Files(NamedTuple):
    """A masker's file, in which masks hide pixels as in its training, and the same with layer masking."""

    fill: Path
    layer: Path


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier to train maskers on, and their pictures.

    Attributes:
        model: as :func:`masktool.maskers.train.train_masker` takes it.
        arch: likewise.
        data: folder of pictures, a subfolder a class.
        preprocessing: of the pictures.
        labels: names of the classes.
        folder: that keeps the maskers.
    """

    model: object
    arch: str | None
    data: Path
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    folder: Path

    def train(self, name: str, settings: TrainingSettings) -> tuple[Files, dict[str, float]]:
        """Trains a masker, or goes on with it.

        Returns:
            Its files, and the seconds that it took, by the clock and of processors; NaN where an earlier run had begun.
        """
        files = Files(self.folder / f"{name}.onnx", self.folder / f"{name}.layer.onnx")
        checkpoint = self.folder / f"{name}{CHECKPOINT_SUFFIX}"
        fresh = not checkpoint.exists()
        started, busy = time.perf_counter(), time.process_time()
        for path, masking in ((files.fill, "fill"), (files.layer, "layer")):
            train_masker(
                self.model,
                self.data,
                path,
                arch=self.arch,
                preprocessing=self.preprocessing,
                labels=self.labels,
                settings=settings,
                masking=masking,  # type: ignore[arg-type]  # a literal
                workers=0,
                checkpoint=checkpoint,
                resume=True,
                log=self.folder / f"{name}.jsonl",
                say=say,
            )
            if masking == "fill":
                taken = {"seconds": time.perf_counter() - started, "CPU seconds": time.process_time() - busy}
        return files, taken if fresh else dict.fromkeys(taken, float("nan"))


def say(message: str) -> None:
    """Tells what is going on, on stderr."""
    print(message, file=sys.stderr, flush=True)


def remembered(path: Path, settings: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a file holds where it was measured with the same settings; else measures and writes it."""
    settings = json.loads(json.dumps(settings))
    if path.exists() and (known := json.loads(path.read_text()))["settings"] == settings:
        found: dict[str, Any] = known["figures"]
        return found
    figures = measure()
    write_json(path, {"settings": settings, "figures": figures})
    return figures


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def write_pictures(folder: Path, pictures: Pixels, labels: Sequence[int], names: Sequence[str]) -> Path:
    """Writes pictures (N, H, W, 3) as PNG files, each in the subfolder of its class."""
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        path = folder / names[label] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def prepare_pictures(pictures: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Returns pictures (N, H, W, 3) as the classifier takes them, (N, C, h, w)."""
    return np.concatenate([prepare(Image.fromarray(each), preprocessing).array for each in pictures])


def read_maps(session: MaskedSession, inputs: NDArray[np.float32]) -> tuple[NDArray[np.intp], Maps]:
    """Returns the predicted classes (N,) and the saliency maps (N, h, w), from the same passes."""
    name = session.metadata.class_output
    assert name is not None  # a masker's file classifies
    found = [session.run(each, outputs=(name, SALIENCY_MAP)) for each in batches(inputs)]
    classes = np.concatenate([each[name].argmax(axis=1) for each in found])
    return classes, np.concatenate([each[SALIENCY_MAP][:, 0] for each in found])


def predict(session: MaskedSession, inputs: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the predicted classes (N,) of pictures of which masks (N, h, w) keep something."""
    masks = kept[:, None].astype(np.float32)
    pairs = zip(batches(inputs), batches(masks), strict=True)
    return np.concatenate([session(images, some).argmax(axis=1) for images, some in pairs])


def batches(array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cuts an array along its first axis."""
    return [array[start : start + BATCH] for start in range(0, len(array), BATCH)]


def cut(maps: Maps) -> NDArray[np.bool_]:
    """Returns what maps keep at .5."""
    return maps >= CUT


def draw_sheet(path: Path, pictures: Pixels, columns: Sequence[Maps]) -> None:
    """Writes a contact sheet: each picture (N, H, W, 3) beside its maps (N, h, w), white where they are 1."""
    pictures = pictures[:SHEET_PICTURES]
    greys = [np.round(255 * each[:SHEET_PICTURES, :, :, None].clip(0, 1)).astype(np.uint8) for each in columns]
    side_by_side = np.concatenate([pictures, *(grey.repeat(3, axis=3) for grey in greys)], axis=2)
    lines = [
        np.concatenate(list(side_by_side[start : start + SHEET_COLUMNS]), axis=1)
        for start in range(0, len(side_by_side) - SHEET_COLUMNS + 1, SHEET_COLUMNS)
    ]
    factor = max(1, SHEET_SIDE // pictures.shape[1])
    sheet = np.concatenate(lines).repeat(factor, axis=0).repeat(factor, axis=1)
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
