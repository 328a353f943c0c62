"""The demo network in several masking modes, and pictures for it whose objects are known exactly.

``MASKTOOL_TEST_PROGRAM`` may name another training seed's ``shapes.pt2``, as scripts/train_demo_model.py writes it; the
tests of what must hold on such a network then run on that one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.demo import model_path, program_path, shapes
from masktool.evaluation.named_models import NamedModel

PROGRAM_VARIABLE = "MASKTOOL_TEST_PROGRAM"
PREPROCESSING = Preprocessing(
    size=(shapes.SIZE, shapes.SIZE), resize="shortest", resize_to=shapes.SIZE, mean=shapes.MEAN, std=shapes.STD
)


def open_shapes_modes(stack: contextlib.ExitStack, folder: Path, modes: tuple[str, ...]) -> list[NamedModel]:
    """Opens the network in each mode, a baseline meaning ``fill``; exports what is not shipped, which needs torch."""
    other = os.environ.get(PROGRAM_VARIABLE)
    program = Path(other or program_path())
    found = []
    for mode in modes:
        if mode == "layer" and not other:
            found.append(NamedModel(mode, stack.enter_context(masktool.load(model_path(), "cpu", threads=1))))
            continue
        masking, baseline = (mode, None) if mode in ("layer", "partial") else ("fill", mode)
        path = folder / f"{mode}.onnx"
        masktool.export(
            program,
            path,
            masking=masking,
            baseline=baseline,
            input_size=PREPROCESSING.size,
            preprocessing=PREPROCESSING,
            output_kind="logits",
            labels=shapes.LABELS,
        )
        found.append(NamedModel(mode, stack.enter_context(masktool.load(path, "cpu", threads=1))))
    return found


def draw_dataset(folder: Path, seed: int, count: int) -> Dataset:
    """Writes pictures into a folder; their classes and objects are known."""
    pictures, samples = shapes.draw(seed, count), []
    for index in range(count):
        path = folder / f"{index:03}.png"
        Image.fromarray(pictures.images[index]).save(path)
        samples.append(
            DatasetImage(path.name, path, int(pictures.labels[index]), object_mask=pictures.object_masks[index])
        )
    return Dataset(tuple(samples))
