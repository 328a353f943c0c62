"""Trains the networks of drawn scenes and exports them: detector, segmenter, classifiers of figures. Needs torch.

    OMP_NUM_THREADS=1 python -m benchmarks.scenes.training --network segmenter --seed 0 -o DIR

Writes NAME.onnx, the plain network, and NAME.masked.onnx with a mask and the preprocessing; without ``--network`` it
trains all, one after the other. The same seed and number of threads give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import masktool
from benchmarks.scenes import drawing, losses, networks
from masktool.contract import Preprocessing
from masktool.demo.shapes import MEAN, STD

TEST_PICTURES = 500
TEST_SEED_OFFSET = 1_000_000
"""Keeps the test pictures apart from every training set of a smaller seed."""
BATCH = 64
WEIGHT_DECAY = 1e-4
BACKGROUND = "background"

Loss = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        build: function that builds it.
        loss: what it learns, from pictures, the masks of their objects and their classes.
        turns: whether pictures are turned by right angles besides being mirrored.
        pictures: size of the training set.
        epochs: passes over it.
        options: options of the export with a mask.
        begins_as: the network whose trunk it begins with, its normalisations fixed: classes of figures alone are
            learned from slowly. That network stands in the same folder, as it was exported.
        recolours: whether the channels change places.
        incomplete: share of figures with parts left out by chance, of which the classes that remain possible are as
            likely: a network learns from them that classes with the same body differ in the top alone.
        peak: highest learning rate.
    """

    build: Callable[[], nn.Module]
    loss: Loss
    turns: bool
    pictures: int
    epochs: int
    options: dict[str, Any]
    begins_as: str | None = None
    recolours: bool = True
    incomplete: float = 0.0
    peak: float = 4e-3


RECIPES = {
    "segmenter": Recipe(
        lambda: networks.Segmenter(1 + len(drawing.OBJECTS)),
        losses.segmentation_loss,
        turns=True,
        pictures=2500,
        epochs=12,
        options={"labels": (BACKGROUND, *drawing.OBJECTS), "class_output": "none"},
    ),
    "detector": Recipe(
        lambda: networks.Detector(len(drawing.OBJECTS), drawing.SIZE),
        losses.detection_loss,
        turns=True,
        pictures=2500,
        epochs=20,
        options={"labels": drawing.OBJECTS, "class_output": "none"},
    ),
    "figures": Recipe(
        lambda: networks.Classifier(len(drawing.FIGURES)),
        losses.classification_loss,
        turns=False,
        pictures=2500,
        epochs=10,
        options={"labels": drawing.FIGURES, "output_kind": "logits"},
        begins_as="segmenter",
        peak=2e-3,
    ),
    "coloured": Recipe(
        lambda: networks.Classifier(len(drawing.COLOURED_FIGURES)),
        losses.classification_loss,
        turns=False,
        pictures=2000,
        epochs=4,
        options={"labels": drawing.COLOURED_FIGURES, "output_kind": "logits"},
        recolours=False,
        incomplete=0.6,
    ),
}
CLASSIFIERS = ("figures", "coloured")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Drawn pictures as tensors.

    Attributes:
        images: normalised pictures, (N, 3, H, W).
        masks: the pixels of each picture's objects, (N, n, H, W) bool, none for objects that there are not.
        labels: the classes of the objects, (N, n), -1 for those that there are not; of figures, the probability of each
            class, (N, classes).
        drawn: the scenes or figures.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    drawn: Sequence[Any]


def draw_pictures(name: str, seed: int, count: int) -> Pictures:
    """Draws the pictures that a network is trained or tested on."""
    if name in CLASSIFIERS:
        figures = drawing.draw_figures(seed, count, name == "coloured", RECIPES[name].incomplete)
        images = [each.image for each in figures]
        labels = torch.from_numpy(np.stack([drawing.share_label(each) for each in figures]))
        return Pictures(normalise(np.stack(images)), torch.zeros(count, 1, 1, 1, dtype=torch.bool), labels, figures)
    scenes = drawing.draw_scenes(seed, count)
    masks = np.zeros((count, drawing.MOST_OBJECTS, drawing.SIZE, drawing.SIZE), np.bool_)
    classes = np.full((count, drawing.MOST_OBJECTS), -1)
    for index, scene in enumerate(scenes):
        masks[index, : len(scene.labels)], classes[index, : len(scene.labels)] = scene.masks, scene.labels
    images = normalise(np.stack([each.image for each in scenes]))
    return Pictures(images, torch.from_numpy(masks), torch.from_numpy(classes), scenes)


def normalise(images: np.ndarray) -> torch.Tensor:
    """Returns (N, H, W, 3) uint8 pictures as the networks' input (N, 3, H, W) float32."""
    return ((torch.from_numpy(images) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def vary(images: torch.Tensor, masks: torch.Tensor, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch mirrored, with other colours (its channels in another order) and turned, all by chance."""
    if recipe.recolours:
        images = images[:, torch.randperm(3)]
    if torch.rand(()) < 0.5:
        images, masks = images.flip(3), masks.flip(3)
    if recipe.turns:
        times = int(torch.randint(4, ()))
        images, masks = images.rot90(times, (2, 3)), masks.rot90(times, (2, 3))
    return images.contiguous(memory_format=torch.channels_last), masks


def train(name: str, seed: int, folder: Path) -> nn.Module:
    """Trains a network, in evaluation mode when returned; reports each epoch on stderr.

    Args:
        name: the name of the network.
        seed: of the pictures, the initial weights and the order of the batches.
        folder: where the network stands that it begins as.
    """
    torch.manual_seed(seed)
    recipe = RECIPES[name]
    started = time.perf_counter()
    pictures = draw_pictures(name, seed, recipe.pictures)
    print(f"{name}: drawn in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    network = recipe.build()
    if recipe.begins_as is not None:
        networks.copy_trunk(network, folder / f"{recipe.begins_as}.onnx")
    network.to(memory_format=torch.channels_last)
    steps = recipe.epochs * -(-recipe.pictures // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak, total_steps=steps)
    for epoch in range(recipe.epochs):
        network.train(recipe.begins_as is None)
        found = []
        for rows in torch.randperm(recipe.pictures).split(BATCH):
            images, masks = vary(pictures.images[rows], pictures.masks[rows], recipe)
            loss = recipe.loss(network, images, masks, pictures.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            found.append(loss.item())
        seconds = time.perf_counter() - started
        print(f"{name}: epoch {epoch + 1}/{recipe.epochs}, loss {np.mean(found):.4f}, {seconds:.0f} s", file=sys.stderr)
    return network.eval()


@torch.inference_mode()
def measure_accuracy(name: str, network: nn.Module, seed: int) -> float:
    """Returns how well a network does on pictures that it was not trained on, see :mod:`benchmarks.scenes.losses`."""
    test = draw_pictures(name, seed + TEST_SEED_OFFSET, TEST_PICTURES)
    found = torch.cat([network(batch) for batch in test.images.split(100)]).numpy()
    if name in CLASSIFIERS:
        complete = test.labels.numpy().max(axis=1) == 1
        return float((found.argmax(1) == test.labels.numpy().argmax(1))[complete].mean())
    return (losses.detection_accuracy if name == "detector" else losses.segmentation_accuracy)(found, test.drawn)


def export(name: str, network: nn.Module, folder: Path) -> None:
    """Writes the plain network and the one with a mask."""
    plain = folder / f"{name}.onnx"
    example = torch.zeros(2, 3, drawing.SIZE, drawing.SIZE)
    torch.onnx.export(
        network.to(memory_format=torch.contiguous_format),
        (example,),
        plain,
        input_names=["image"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    preprocessing = Preprocessing(size=(drawing.SIZE, drawing.SIZE), resize="exact", mean=MEAN, std=STD)
    masked = masktool.export(
        plain, folder / f"{name}.masked.onnx", preprocessing=preprocessing, **RECIPES[name].options
    )
    print(f"{masked.path}: parity {dict(masked.metadata.parity)}", file=sys.stderr)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=RECIPES, action="append", help="may be repeated  [default: all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="decides the last bits of the weights")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.network or RECIPES:
        started, cpu = time.perf_counter(), time.process_time()
        network = train(name, options.seed, options.output)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        accuracy = measure_accuracy(name, network, options.seed)
        export(name, network, options.output)
        told = {"network": name, "seed": options.seed, "accuracy": round(accuracy, 4)}
        print(json.dumps(told | {"seconds": round(seconds), "cpu_seconds": round(cpu_seconds)}), flush=True)


if __name__ == "__main__":
    main()
