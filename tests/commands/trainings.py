"""What tests of ``masktool train-masker`` train on: a small classifier's weights, its architecture, drawn pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from masktool.demo import shapes

ARCHITECTURE = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 8),
    )


def build_without_places():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 8))
"""
MODEL = ["weights.pt", "--arch", "net.py:build", "--input-size", "32", "32"]
PIXELS = ["--mean", ".5,.5,.5", "--std", ".13,.13,.13"]
PICTURES = 32


def prepare_folder(folder: Path) -> None:
    """Writes ``net.py``, ``weights.pt``, ``labels.txt`` and 32 pictures below ``data``, four of each class."""
    (folder / "net.py").write_text(ARCHITECTURE)
    (folder / "labels.txt").write_text("\n".join(shapes.LABELS))
    save_weights(folder)
    drawn = shapes.draw(0, PICTURES, 32)
    for number, (picture, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        path = folder / "data" / shapes.LABELS[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def save_weights(folder: Path, factory: str = "build") -> nn.Module:
    """Writes the weights of a network of ``net.py``, always the same, and returns the network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict = {}
        exec(ARCHITECTURE, names)
        network = names[factory]()
    torch.save(network.state_dict(), folder / "weights.pt")
    return network


def train_arguments(*more: str, data: str = "data") -> list[str]:
    """Returns a command line that trains for two epochs of four steps."""
    quick = ["--epochs", "2", "--batch", "8", "-o", "masker.onnx", "--labels", "labels.txt"]
    return ["train-masker", *MODEL, *PIXELS, "--data", data, *quick, *more]


def start_training(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Starts the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "masktool", *train_arguments(*more)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_log(path: Path) -> list[dict]:
    """Returns the documents of a log, one per step."""
    return [json.loads(line) for line in path.read_text().splitlines()]
