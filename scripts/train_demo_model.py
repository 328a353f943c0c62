"""Trains the demo's network on the shapes set and writes what ``masktool demo`` ships.

    python scripts/train_demo_model.py                                           # all that stands in masktool/demo/data
    python scripts/train_demo_model.py --variant hard --seed 1 --only train -o DIR    # a variant: shapes-hard.pt2

The same seed gives the same weights on the same machine. Needs torch; the standard variant takes about four minutes on
two cores. The evidence on masking is measured on three more: ``bottleneck``, a ResNet whose strides are in 1 x 1
convolutions (440 processor seconds), ``hybrid``, attention behind the demo's convolutions (200), and ``transformer``,
attention alone (1,060).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from shapes_bottlenecks import BottleneckNetwork
from shapes_network import ShapesNetwork
from shapes_variants import ClassLoss, TokenLoss, build_hybrid, build_transformer
from torch import nn

from masktool.contract import Preprocessing
from masktool.demo import shapes
from masktool.interface.export import export

DATA = Path(__file__).parent.parent / "masktool" / "demo" / "data"
TEST_PICTURES = 1500
TEST_SEED_OFFSET = 1_000_000
"""Keeps a run's test pictures apart from every training set of a smaller seed."""
SAMPLE_SIZE = (400, 480)
"""(height, width): not square, so that the crop shows."""
SAMPLE_LABEL = "cross"
SAMPLE_SEED = 1
"""Of several, one whose object stands off the centre."""
THREADS = 2
"""The same for all, since the number of threads decides in which order sums are taken."""
HELD_OUT_PICTURES = 400
HELD_OUT_SEED_OFFSET = 2_000_000
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One variant of the network.

    Attributes:
        bias: False for the network in which a logit is exactly the sum of gradient times input.
        pictures: size of the training set.
        epochs: passes over it.
        enough: accuracy on held-out pictures at which training ends early; None never ends it early.
        build: function from the number of classes to another network; None takes the demo's.
        peak: highest learning rate.
        decay: weight decay.
        loss: what is learned from; made of the network and the number of classes.
    """

    bias: bool
    pictures: int
    epochs: int
    enough: float | None = None
    build: Callable[[int], nn.Module] | None = None
    peak: float = PEAK_LEARNING_RATE
    decay: float = WEIGHT_DECAY
    loss: Callable[[nn.Module, int], nn.Module] = ClassLoss


RECIPES = {
    "standard": Recipe(bias=True, pictures=12_000, epochs=6),
    "bias-free": Recipe(bias=False, pictures=12_000, epochs=6),
    "hard": Recipe(bias=True, pictures=2_000, epochs=20, enough=0.5),
    "hard-bias-free": Recipe(bias=False, pictures=2_000, epochs=20, enough=0.5),
    "hybrid": Recipe(bias=True, pictures=12_000, epochs=2, build=build_hybrid, peak=1e-3),
    "bottleneck": Recipe(bias=True, pictures=12_000, epochs=6, build=BottleneckNetwork),
    "transformer": Recipe(
        bias=True, pictures=12_000, epochs=20, build=build_transformer, peak=1.5e-3, decay=0.01, loss=TokenLoss
    ),
}
"""``hard`` stops half-way, at an accuracy of .5 to .8: learning sets in so suddenly that no fixed number of epochs ends
there for every seed."""


def normalise(images: NDArray[np.uint8]) -> torch.Tensor:
    """Returns (N, H, W, 3) uint8 pictures as the network's input (N, 3, H, W) float32."""
    scaled = (torch.from_numpy(images) / 255 - torch.tensor(shapes.MEAN)) / torch.tensor(shapes.STD)
    return scaled.permute(0, 3, 1, 2)


def train(recipe: Recipe, seed: int) -> nn.Module:
    """Trains a network, in evaluation mode when returned; reports each epoch on stderr.

    Args:
        recipe: the variant.
        seed: of the pictures, the initial weights and the order of the batches.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # a fifth of the time, and nothing here reads such memory
    )
    pictures = shapes.draw(seed, recipe.pictures)
    held_out = shapes.draw(seed + HELD_OUT_SEED_OFFSET, HELD_OUT_PICTURES)
    inputs, labels = normalise(pictures.images), torch.from_numpy(pictures.labels)
    objects = torch.from_numpy(pictures.object_masks)
    network = recipe.build(len(shapes.LABELS)) if recipe.build else ShapesNetwork(len(shapes.LABELS), recipe.bias)
    network = network.to(memory_format=torch.channels_last)  # a third faster
    measure_loss = recipe.loss(network, len(shapes.LABELS))
    steps = recipe.epochs * -(-recipe.pictures // BATCH)
    optimizer = torch.optim.AdamW(measure_loss.parameters(), weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak, total_steps=steps)
    for epoch in range(recipe.epochs):
        measure_loss.train()
        started = time.perf_counter()
        losses = []
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = measure_loss(inputs[batch], labels[batch], objects[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{recipe.epochs}: loss {np.mean(losses):.4f}, {seconds:.0f} s", file=sys.stderr)
        if recipe.enough is not None and measure_accuracy(network, held_out) >= recipe.enough:
            break
    return network.eval()


@torch.inference_mode()
def measure_accuracy(network: nn.Module, pictures: shapes.Shapes) -> float:
    """Returns the share of the pictures whose greatest logit is their class; leaves the network in evaluation mode."""
    network.eval()
    predicted = torch.cat([network(batch).argmax(1) for batch in normalise(pictures.images).split(250)])
    return float((predicted.numpy() == pictures.labels).mean())


def save_program(network: nn.Module, path: Path) -> None:
    """Writes a network as a ``torch.export`` program, weights included: input ``image`` (N, 3, H, W), any N."""
    example = torch.zeros(2, 3, shapes.SIZE, shapes.SIZE)  # torch takes a batch of 1 for a constant
    program = torch.export.export(
        network.to(memory_format=torch.contiguous_format), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names directories of this machine
    torch.export.save(program, path)


def write_sample(directory: Path) -> None:
    """Writes the sample picture, its exact object mask and its class."""
    height, width = SAMPLE_SIZE
    picture, object_mask = shapes.draw_one(
        np.random.default_rng(SAMPLE_SEED), shapes.LABELS.index(SAMPLE_LABEL), height, width
    )
    Image.fromarray(picture).save(directory / "sample.png", optimize=True)
    Image.fromarray(object_mask).save(directory / "sample_mask.png", optimize=True)
    (directory / "sample.json").write_text(json.dumps({"label": SAMPLE_LABEL}) + "\n")


def export_masked(program: Path) -> None:
    """Exports a ``.pt2`` as the ONNX file with a mask, beside it."""
    preprocessing = Preprocessing(
        size=(shapes.SIZE, shapes.SIZE), resize="shortest", resize_to=shapes.SIZE, mean=shapes.MEAN, std=shapes.STD
    )
    metadata = export(
        program,
        program.with_suffix(".onnx"),
        input_size=preprocessing.size,
        preprocessing=preprocessing,
        labels=shapes.LABELS,
        output_kind="logits",
    ).metadata
    print(f"exported {program.with_suffix('.onnx')}: parity {dict(metadata.parity)}", file=sys.stderr)


def train_and_save(variant: str, seed: int, path: Path, epochs: int | None = None) -> None:
    """Trains a variant, prints its accuracy on pictures of another seed as JSON, and saves it."""
    recipe = RECIPES[variant]
    network = train(dataclasses.replace(recipe, epochs=epochs or recipe.epochs), seed)
    accuracy = measure_accuracy(network, shapes.draw(seed + TEST_SEED_OFFSET, TEST_PICTURES))
    save_program(network, path)
    print(json.dumps({"variant": variant, "seed": seed, "accuracy": round(accuracy, 4), "bytes": path.stat().st_size}))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=RECIPES, default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes over the pictures; default: the variant's")
    parser.add_argument("--threads", type=int, default=THREADS, help="decides the last bits of the weights")
    parser.add_argument("-o", "--output", type=Path, default=DATA, metavar="DIR")
    parser.add_argument("--only", choices=("train", "export", "sample"), help="one step of the three; default: all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = "" if options.variant == "standard" else f"-{options.variant}"
    program = options.output / f"shapes{suffix}.pt2"
    if options.only in (None, "train"):
        train_and_save(options.variant, options.seed, program, options.epochs)
    if options.only in (None, "export"):
        export_masked(program)
    if options.only in (None, "sample"):
        write_sample(options.output)


if __name__ == "__main__":
    main()
