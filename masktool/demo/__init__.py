"""What ``masktool demo`` works on: a small CNN, a picture that it knows, and the object in that picture."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

__all__ = ["model_path", "program_path", "sample_label", "sample_mask_path", "sample_path"]


def model_path() -> Path:
    """Returns the path of the exported network: ``explain``'s model where none is named."""
    return shipped_file("shapes.onnx")


def program_path() -> Path:
    """Returns the path of the same network as torch saves it, a source for ``masktool export``."""
    return shipped_file("shapes.pt2")


def sample_path() -> Path:
    """Returns the path of the sample picture."""
    return shipped_file("sample.png")


def sample_mask_path() -> Path:
    """Returns the path of the sample's object: a PNG of the same size, 0 or 255 (1-bit), 255 = object."""
    return shipped_file("sample_mask.png")


def sample_label() -> str:
    """Returns the sample's class."""
    label: str = json.loads(shipped_file("sample.json").read_text(encoding="utf-8"))["label"]
    return label


def shipped_file(name: str) -> Path:
    """Returns the path of a file that the package ships; an installed package lies unpacked."""
    return Path(str(resources.files(__name__) / "data" / name))
