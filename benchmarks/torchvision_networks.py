"""torchvision's networks, also where the wheel's compiled operators cannot be loaded."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_DECLARED: list[Any] = []
"""Operator declarations last as long as these objects."""


def import_torchvision_models() -> ModuleType:
    """Imports torchvision.models.

    Importing torchvision registers shape rules for its nms operators, which fails when its CUDA build stands beside a
    CPU torch. The classification models use none of them, so that declaring them is enough.
    """
    try:
        import torchvision
    except RuntimeError:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        import torchvision
    return torchvision.models
