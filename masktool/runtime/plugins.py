"""Providers that are plugins: packages beside ONNX Runtime whose library it loads when it is told to."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import Any

from masktool.execution_providers.provider import ExecutionProvider
from masktool.runtime.importing import import_onnxruntime

REGISTERED: set[str] = set()
"""Modules whose library ONNX Runtime has loaded; it takes each once in a process."""
REGISTERING = threading.Lock()


def has_plugin(provider: ExecutionProvider) -> bool:
    """Tells whether the package of a provider that is a plugin is installed."""
    return provider.plugin is not None and importlib.util.find_spec(provider.plugin) is not None


def list_devices(provider: ExecutionProvider) -> list[Any]:
    """Returns the devices that ONNX Runtime lists for a provider, once it has loaded the provider's plugin, if any.

    A program that loaded the plugin itself is not disturbed. What the import of the package or ONNX Runtime raises
    passes.
    """
    onnxruntime = import_onnxruntime()
    with REGISTERING:
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider.runtime_name]
        if found or provider.plugin is None or provider.plugin in REGISTERED or not has_plugin(provider):
            return found
        package = importlib.import_module(provider.plugin)
        onnxruntime.register_execution_provider_library(provider.runtime_name, package.get_library_path())
        REGISTERED.add(provider.plugin)
    return list_devices(provider)


def lists_gpu(provider: ExecutionProvider) -> bool:
    """Tells whether ONNX Runtime lists a GPU for a provider."""
    kinds = import_onnxruntime().OrtHardwareDeviceType
    return any(found.device.type == kinds.GPU for found in list_devices(provider))


def describe_plugin(provider: ExecutionProvider) -> str:
    """Returns name and version of the package of a provider that is a plugin."""
    import importlib.metadata  # with all that it imports, which no other path needs

    return f"{provider.package} {importlib.metadata.version(provider.package)}"
