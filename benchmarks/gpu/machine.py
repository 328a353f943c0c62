"""What machine the figures come from, as far as it tells."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gradient import peak_memory as largest_resident_set
from masktool.contract import __version__
from masktool.execution_providers import PROVIDERS
from masktool.interface.distributions import find_runtime_distributions, find_version
from masktool.runtime.batching import KIBIBYTE
from masktool.runtime.batching import peak_memory as largest_by_system
from masktool.runtime.importing import import_onnxruntime

SECONDS_FOR_NVIDIA_SMI = 10.0
TOLD_BY = ("onnxruntime", "nvidia-", "tensorrt")
"""Beginnings of the names of distributions that providers come of."""


def describe_machine(threads: int | None) -> dict[str, Any]:
    """Returns what the figures depend on: processor, GPUs and driver, threads, and versions."""
    runtime = import_onnxruntime()
    return {
        "system": platform.platform(),
        "cpu": find_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads or "ONNX Runtime's choice",
        "gpus": ask_nvidia("name", "driver_version", "memory.total") or "none that nvidia-smi tells",
        "versions": {
            "masktool": __version__,
            "python": platform.python_version(),
            "numpy": find_version("numpy"),
            **{name: find_version(name) for name in find_runtime_distributions()},
            **find_libraries(),
        },
        "cuda of onnxruntime": str(getattr(runtime, "cuda_version", "") or "none"),
        "providers of onnxruntime": runtime.get_available_providers(),
    }


def find_processor() -> str:
    """Returns the name of the processor."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_libraries() -> dict[str, str]:
    """Returns the versions of installed distributions that providers come of or need."""
    plugins = tuple(provider.package for provider in PROVIDERS if provider.plugin is not None)
    found = {each.name: each.version for each in importlib.metadata.distributions() if each.name is not None}
    return {name: found[name] for name in sorted(found) if name.startswith((*TOLD_BY, *plugins))}


def ask_nvidia(*names: str) -> list[dict[str, str]] | None:
    """Returns what nvidia-smi says of each GPU; None where there is no answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_NVIDIA_SMI, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [dict(zip(names, line.split(", "), strict=False)) for line in answer.stdout.strip().splitlines()]


def device_memory() -> float | None:
    """Returns the MiB that are taken on all NVIDIA GPUs together; None where that is not known."""
    told = ask_nvidia("memory.used")
    try:
        return sum(float(each["memory.used"]) for each in told) if told else None
    except ValueError:  # "[N/A]", as where a GPU is divided
        return None


def host_memory() -> float | None:
    """Returns the largest resident set of this process in MiB; None where the system does not tell."""
    if sys.platform == "linux":
        return largest_resident_set()
    return largest_by_system() / KIBIBYTE**2 or None
