"""Installed distributions, and how pip is told to install others."""

from __future__ import annotations

import importlib.metadata

RUNTIME_MODULE = "onnxruntime"
PIP = "python -m pip install"


def find_version(distribution: str) -> str:
    """Returns a distribution's version, or words for its absence."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def find_runtime_distributions() -> list[str]:
    """Returns the installed distributions that hold the module ``onnxruntime``."""
    return sorted(set(importlib.metadata.packages_distributions().get(RUNTIME_MODULE, ())))


def choose_runtime(names: list[str]) -> str:
    """Returns the one distribution to keep: a build for an accelerator holds the CPU provider too."""
    return next((name for name in names if name != RUNTIME_MODULE), RUNTIME_MODULE)


def replace_runtime(wanted: str, requirement: str) -> str:
    """Returns the command that installs a distribution of ONNX Runtime, in place of the others that there are.

    Args:
        wanted: name of the distribution.
        requirement: what pip is told to install.
    """
    others = [name for name in find_runtime_distributions() if name != wanted]
    install = f"{PIP} {requirement}"
    return f"python -m pip uninstall -y {' '.join(others)} && {install}" if others else install
