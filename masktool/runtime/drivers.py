"""Whether the driver of a GPU is there, which is asked before ONNX Runtime is: its own message names a library."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from masktool.execution_providers.provider import Driver

NO_CUDA_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of the driver's interface."""
AMD_DRIVER = Path("/dev/kfd")
"""What AMD's driver for computing makes; ROCm asks it for GPUs."""
VULKAN_LOADER = "libvulkan.so.1"


def find_driver_obstacle(driver: Driver | None) -> str | None:
    """Returns the reason why a driver offers no GPU; None where it does, or where none can be told beforehand."""
    return None if driver is None else FINDERS[driver]()


def find_nvidia_obstacle() -> str | None:
    """Returns the reason why no NVIDIA GPU can be used, as the driver itself gives it; None when one can."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver"
    if status := driver.cuInit(0):
        return (
            "the NVIDIA driver sees no GPU" if status == NO_CUDA_DEVICE else f"the NVIDIA driver gives error {status}"
        )
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return "the NVIDIA driver sees no GPU"
    return None


def find_amd_obstacle() -> str | None:
    """Returns a sentence where AMD's driver for computing is not loaded; None where it is."""
    return None if AMD_DRIVER.exists() else f"this machine has no AMD driver ({AMD_DRIVER})"


def find_vulkan_obstacle() -> str | None:
    """Returns a sentence where the loader of Vulkan's drivers is missing; None where it is there, or not needed."""
    if sys.platform != "linux":  # Direct3D 12 and Metal come with the system
        return None
    try:
        ctypes.CDLL(VULKAN_LOADER)
    except OSError:
        return f"this machine has no Vulkan loader ({VULKAN_LOADER})"
    return None


FINDERS: Mapping[Driver, Callable[[], str | None]] = {
    "nvidia": find_nvidia_obstacle,
    "amd": find_amd_obstacle,
    "vulkan": find_vulkan_obstacle,
}
