"""Whether each execution provider is there, loads and computes what the CPU does, and what mends it where not."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from masktool.errors import MasktoolError, describe_exception
from masktool.execution_providers import CPU, CUDA, PROVIDERS, TENSORRT, ExecutionProvider
from masktool.execution_providers.provider import Driver
from masktool.interface.distributions import (
    PIP,
    choose_runtime,
    find_runtime_distributions,
    replace_runtime,
)
from masktool.interface.doctor_finding import DoctorFinding
from masktool.interface.provider_proof import Proof, ProviderProof
from masktool.messages import parameter

EXACT = 1e-4
"""Largest difference, as a share of the scores' range, of arithmetic in 32 bits."""
ROUNDED = 2e-2
"""Largest difference of arithmetic in 16 bits, or with factors of 10 (TF32); a mask without influence is far beyond."""
LESS_ROUNDED = "set NVIDIA_TF32_OVERRIDE=0 where the GPU is NVIDIA's, or take " + parameter("providers", "cpu")
SYSTEMS = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}
NEEDED_DRIVERS: Mapping[Driver, str] = {
    "nvidia": "an NVIDIA GPU with its driver",
    "amd": "an AMD GPU with its driver and ROCm",
    "vulkan": "a GPU with its Vulkan driver, and Vulkan's loader (the package libvulkan1 of Debian and Ubuntu)",
}


def check_providers() -> Iterator[DoctorFinding]:
    """Runs a masked network on every provider, the CPU first."""
    with tempfile.TemporaryDirectory() as folder:
        proof = ProviderProof(Path(folder))
        for provider in (CPU, CUDA, TENSORRT, *(each for each in PROVIDERS if each not in (CPU, CUDA, TENSORRT))):
            finding = check_provider(provider, proof)
            yield finding
            if finding.state in ("ok", "warning"):
                for options in provider.trials:
                    yield check_options(provider, options, proof)


def check_provider(provider: ExecutionProvider, proof: ProviderProof) -> DoctorFinding:
    """Opens and runs a small network on one provider; one listed as available is built in, but may not load."""
    from masktool.runtime.providers import find_missing_build, is_built_in

    name, needed = provider.title, provider == CPU
    if sys.platform not in provider.systems:
        systems = " and ".join(SYSTEMS[each] for each in provider.systems)
        fix = f"on {systems}: {PIP} {provider.requirement or provider.package}"
        return DoctorFinding(name, "absent", f"is for {systems} alone", fix)
    try:
        if missing := find_missing_build(provider):
            return DoctorFinding(name, "absent", missing, mend(provider), needed)
        found, reason = proof.run(provider)
        if found is None:
            detail = f"{'built in' if is_built_in(provider) else 'installed'}, does not load: {reason}"
            return DoctorFinding(name, "broken" if needed else "absent", detail, mend(provider), needed)
    except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
        return DoctorFinding(name, "broken", describe_exception(error), mend(provider), needed)
    return DoctorFinding(name, "ok", "loads and runs", needed=True) if needed else judge_proof(name, found)


def check_options(
    provider: ExecutionProvider, options: tuple[tuple[str, str], ...], proof: ProviderProof
) -> DoctorFinding:
    """Runs the network with options of a provider that loads without them."""
    name = f"{provider.title} {' '.join(f'{option}={value}' for option, value in options)}"
    fix = f"leave out {options[0][0]}={options[0][1]}"
    try:
        found, reason = proof.run(provider, dict(options))
    except Exception as error:  # as above
        return DoctorFinding(name, "broken", describe_exception(error), fix)
    return DoctorFinding(name, "broken", f"does not load: {reason}", fix) if found is None else judge_proof(name, found)


def judge_proof(name: str, proof: Proof) -> DoctorFinding:
    """Returns the finding on a provider that runs, by how far its scores are from the CPU's."""
    off = f"a masked forward differs from the CPU's by {proof.difference:.1e} of the scores' range"
    times = f"first run {proof.first_seconds:.2g} s, next {proof.next_seconds:.2g} s"
    if proof.reopened_seconds is not None:
        times += f", first of a second session {proof.reopened_seconds:.2g} s"
    if proof.difference <= EXACT:
        return DoctorFinding(name, "ok", f"loads and runs; {off}; {times}")
    if proof.difference <= ROUNDED:
        detail = f"loads, and computes in less than 32 bits: {off}; {times}"
        return DoctorFinding(name, "warning", detail, LESS_ROUNDED)
    return DoctorFinding(
        name,
        "broken",
        f"loads, but computes wrongly: {off}",
        "take " + parameter("providers", "cpu") + ", and report it",
    )


def mend(provider: ExecutionProvider) -> str:
    """Returns the command or step that gives a machine what a provider needs."""
    from masktool.runtime.drivers import find_driver_obstacle
    from masktool.runtime.plugins import has_plugin

    if provider == CPU:
        return f"{PIP} --force-reinstall --no-deps {choose_runtime(find_runtime_distributions())}"
    needs = []
    if provider.driver is not None and find_driver_obstacle(provider.driver):
        needs.append(NEEDED_DRIVERS[provider.driver])
    if has_plugin(provider):
        return "needs " + (" and ".join(needs) or f"one of {provider.devices}")
    return f"needs {' and '.join(needs)}, then {install_command(provider)}" if needs else install_command(provider)


def install_command(provider: ExecutionProvider) -> str:
    """Returns the command that installs a provider."""
    if provider == TENSORRT:
        if not (major := find_cuda_major()):  # that of the build, which comes first
            return f"{install_command(CUDA)}, and `masktool doctor` again for TensorRT's own libraries"
        libraries = f"{PIP} tensorrt-cu{major}"
        return f"{libraries}, with its directory tensorrt_libs on LD_LIBRARY_PATH (PATH on Windows)"
    requirement = provider.requirement or provider.package
    if provider.plugin is not None:
        return f"{PIP} {requirement}"
    return replace_runtime(provider.package, requirement)


def find_cuda_major() -> str:
    """Returns the major version of CUDA that the installed ONNX Runtime was built with, or an empty text."""
    from masktool.runtime.providers import import_onnxruntime

    try:
        return str(getattr(import_onnxruntime(), "cuda_version", "")).split(".")[0]
    except MasktoolError:  # has been reported by its own check
        return ""
