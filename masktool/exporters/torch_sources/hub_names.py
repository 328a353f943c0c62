"""Tells names of models in torchvision's and timm's hubs from paths, without loading either hub."""

from __future__ import annotations

import os
from pathlib import Path

TORCHVISION, TIMM = "torchvision:", "timm:"
AUTO = "auto"
"""In place of an architecture's name: the one of the hubs that has the keys and shapes of the state dict."""


def is_hub_name(text: str) -> bool:
    """Tells whether a text has the form ``torchvision:NAME`` or ``timm:NAME``."""
    return text.startswith((TORCHVISION, TIMM))


def names_hub_model(model: str | os.PathLike[str]) -> bool:
    """Tells whether a model's name or path is a hub name, and no file of that name exists."""
    return is_hub_name(os.fspath(model)) and not Path(model).exists()
