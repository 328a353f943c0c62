"""ONNX Runtime's execution providers: one file each, listed here in the order in which ``auto`` prefers them."""

from masktool.execution_providers.coreml import COREML
from masktool.execution_providers.cpu import CPU
from masktool.execution_providers.cuda import CUDA
from masktool.execution_providers.directml import DIRECTML
from masktool.execution_providers.migraphx import MIGRAPHX
from masktool.execution_providers.openvino import OPENVINO
from masktool.execution_providers.provider import ExecutionProvider
from masktool.execution_providers.tensorrt import TENSORRT
from masktool.execution_providers.webgpu import WEBGPU

__all__ = ["AUTO", "CPU", "CUDA", "NAMES", "PROVIDERS", "TENSORRT", "ExecutionProvider", "know_provider"]

AUTO = "auto"
PROVIDERS = (CUDA, MIGRAPHX, WEBGPU, DIRECTML, TENSORRT, OPENVINO, COREML, CPU)
"""All providers: those made for one maker's GPUs before those for any, and behind them those that are taken by name
only. The CPU stands last: ``auto`` takes it where nothing else loads."""
BY_NAME = {name: provider for provider in PROVIDERS for name in (provider.name, *provider.aliases)}
BY_RUNTIME_NAME = {provider.runtime_name: provider for provider in PROVIDERS}
NAMES = tuple(dict.fromkeys((AUTO, "cpu", "cuda", "tensorrt", *sorted(BY_NAME))))
"""What can be typed behind ``--provider``, the commonest first."""


def know_provider(name: str) -> ExecutionProvider | None:
    """Returns a provider by masktool's name or ONNX Runtime's; None where masktool knows no such provider."""
    return BY_NAME.get(name) or BY_RUNTIME_NAME.get(name)
