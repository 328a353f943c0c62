"""What all tests share: the folder of real weights and photographs, and torchvision where its operators are missing."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA_VARIABLE = "MASKTOOL_TEST_DATA"
DATA_BESIDE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"
DECLARED_LIBRARIES: list[Any] = []
"""Operator declarations last as long as these objects."""


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with weights/, golden/, cifar/, acuity227/ and more; the test is skipped where there is none."""
    folder = Path(os.environ.get(DATA_VARIABLE) or DATA_BESIDE_CHECKOUT)
    if not (folder / "weights").is_dir():
        pytest.skip(f"needs the test data: set {DATA_VARIABLE} to its folder (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def torchvision_models() -> ModuleType:
    """The module ``torchvision.models``."""
    return import_torchvision_models()


def import_torchvision_models() -> ModuleType:
    """Imports torchvision.models, even where the wheel's compiled operators cannot be loaded.

    Importing torchvision registers shape rules for its nms operators, which fails when its CUDA build stands beside a
    CPU torch. The classification models use none of them, so that declaring them is enough.
    """
    torch = pytest.importorskip("torch")
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        DECLARED_LIBRARIES.append(library)
        import torchvision
    return torchvision.models
