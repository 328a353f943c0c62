"""masktool: turns a trained CNN into an ONNX model that takes a mask, and explains predictions with it.

Names are loaded on first use, so that ``import masktool`` pulls in neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime reads it once, when it is imported: off later still leaves a device identifier in the user's cache."""
if not os.environ.get(TELEMETRY_SWITCH):  # it takes an empty value for none; 0 is the user's own word and stays
    os.environ[TELEMETRY_SWITCH] = "1"

if TYPE_CHECKING:
    from masktool.contract import Preprocessing
    from masktool.contract import __version__ as __version__
    from masktool.errors import MasktoolError, UnsupportedOperatorError
    from masktool.explainers.explanation import Explanation
    from masktool.exporters import add_gradients_to, export
    from masktool.exporters.description import ModelDescription, TensorDescription, describe
    from masktool.exporters.result import Export, NodeRule, SourceSummary
    from masktool.exporters.settings import Preset
    from masktool.interface.cache_entries import CacheEntry, clear_cache, list_cache
    from masktool.interface.evaluate import evaluate
    from masktool.interface.explain import explain
    from masktool.interface.load import load
    from masktool.interface.options import ExportOptions
    from masktool.maskers.train import train_masker
    from masktool.runtime.session import MaskedSession

__all__ = [
    "CacheEntry",
    "Explanation",
    "Export",
    "ExportOptions",
    "MaskedSession",
    "MasktoolError",
    "ModelDescription",
    "NodeRule",
    "Preprocessing",
    "Preset",
    "SourceSummary",
    "TensorDescription",
    "UnsupportedOperatorError",
    "add_gradients_to",
    "clear_cache",
    "describe",
    "evaluate",
    "explain",
    "export",
    "list_cache",
    "load",
    "train_masker",
]

_MODULE_OF_NAME = {
    "CacheEntry": "masktool.interface.cache_entries",
    "__version__": "masktool.contract",
    "Explanation": "masktool.explainers.explanation",
    "ExportOptions": "masktool.interface.options",
    "Export": "masktool.exporters.result",
    "MaskedSession": "masktool.runtime.session",
    "MasktoolError": "masktool.errors",
    "ModelDescription": "masktool.exporters.description",
    "NodeRule": "masktool.exporters.result",
    "Preprocessing": "masktool.contract",
    "Preset": "masktool.exporters.settings",
    "SourceSummary": "masktool.exporters.result",
    "TensorDescription": "masktool.exporters.description",
    "UnsupportedOperatorError": "masktool.errors",
    "add_gradients_to": "masktool.exporters",
    "clear_cache": "masktool.interface.cache_entries",
    "describe": "masktool.exporters.description",
    "evaluate": "masktool.interface.evaluate",
    "explain": "masktool.interface.explain",
    "export": "masktool.exporters",
    "list_cache": "masktool.interface.cache_entries",
    "load": "masktool.interface.load",
    "train_masker": "masktool.maskers.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'masktool' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
