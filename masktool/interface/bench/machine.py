"""The machine that figures were measured on, described so that a reader can tell what they are worth."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from masktool.contract import __version__
from masktool.interface.distributions import find_runtime_distributions, find_version

CPU_RECORD = Path("/proc/cpuinfo")
CPU_NAME = "model name"
"""Entry of Linux's record of the CPU that holds its name; other systems tell it to :mod:`platform`."""
MEASURED_WITH = ("numpy", "onnx", "scikit-image", "pillow")
"""Distributions whose versions may matter to a figure, besides ONNX Runtime's."""


def describe_machine() -> dict[str, Any]:
    """Returns the system, the CPU, its cores and those that this process may use, the versions, and the load now."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": name_cpu(),
        "cores": os.cpu_count(),
        "cores_usable": count_usable_cores(),
        "python": platform.python_version(),
        "masktool": __version__,
        "versions": {name: find_version(name) for name in (*find_runtime_distributions(), *MEASURED_WITH)},
        "load": read_load(),
    }


def name_cpu() -> str:
    """Returns the name of the CPU, as the system tells it."""
    if CPU_RECORD.is_file():
        for line in CPU_RECORD.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == CPU_NAME:
                return value.strip()
    return platform.processor() or "of unknown name"


def count_usable_cores() -> int | None:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def read_load() -> float | None:
    """Returns how many processes wanted a core, the mean of the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
