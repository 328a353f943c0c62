"""The files that ``masktool demo`` works on: a small CNN, a sample picture, and the object in that picture."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

__all__ = ["model_path", "program_path", "sample_label", "sample_mask_path", "sample_path"]


def model_path() -> Path:
    """Returns the path of the exported network, the built-in model of ``explain`` where no model is named."""
    return shipped_file("shapes.onnx")


def program_path() -> Path:
    """Returns the path of the built-in network as torch saves it, a source for ``masktool export``."""
    return shipped_file("shapes.pt2")


def sample_path() -> Path:
    """Returns the path of the sample picture."""
    return shipped_file("sample.png")


def sample_mask_path() -> Path:
    """Returns the path of the sample picture's object: a 1-bit PNG of the same size, 255 = object, 0 elsewhere."""
    return shipped_file("sample_mask.png")


def sample_label() -> str:
    """Returns the label of the sample picture's class."""
    label: str = json.loads(shipped_file("sample.json").read_text(encoding="utf-8"))["label"]
    return label


def shipped_file(name: str) -> Path:
    """Returns the path of a file that the package ships, which needs the package to be installed unpacked."""
    return Path(str(resources.files(__name__) / "data" / name))
