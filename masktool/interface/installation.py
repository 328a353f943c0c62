"""What is installed, what really works, and the command that mends the rest: :func:`doctor`."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from masktool.contract import __version__
from masktool.errors import MasktoolError, describe_exception
from masktool.interface.distributions import (
    PIP,
    RUNTIME_MODULE,
    choose_runtime,
    find_runtime_distributions,
    find_version,
)
from masktool.interface.doctor_finding import DoctorFinding
from masktool.interface.provider_checks import check_providers
from masktool.telemetry import TELEMETRY_SWITCH

NEEDED = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxscript": "onnxscript",
    "click": "click",
    "PIL": "pillow",
    "rich": "rich",
    "skimage": "scikit-image",
    "tifffile": "tifffile",
    "threadpoolctl": "threadpoolctl",
}
"""Distribution of each module that masktool needs; ONNX Runtime has a check of its own."""
OPTIONAL = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "safetensors": "safetensors"}
"""Distribution of each module that only exporting from PyTorch needs."""


def doctor() -> Iterator[DoctorFinding]:
    """Yields findings on what is installed and what really works, each as soon as its check is done.

    Packages are imported, and each of ONNX Runtime's providers that loads runs a small masked network, whose scores are
    compared with the CPU's.
    """
    for check in list_checks():
        yield from check()


def works(findings: Iterable[DoctorFinding]) -> bool:
    """Tells whether an ``.onnx`` can be exported and explained with, by what :func:`doctor` found."""
    return not any(finding.needed and finding.state in ("broken", "absent") for finding in findings)


def list_checks() -> list[Callable[[], Iterator[DoctorFinding]]]:
    """Returns the checks in the order of the report."""
    return [
        check_python,
        *(functools.partial(check_package, module, name, needed=True) for module, name in NEEDED.items()),
        check_runtime,
        check_overlay,
        check_telemetry,
        check_providers,
        check_model,
        *(functools.partial(check_package, module, name, needed=False) for module, name in OPTIONAL.items()),
    ]


def check_python() -> Iterator[DoctorFinding]:
    """Names the interpreter, the system and masktool itself."""
    system = f"{platform.system()} {platform.machine()}"
    yield DoctorFinding("python", "ok", f"{platform.python_version()} on {system} ({sys.executable})", needed=True)
    yield DoctorFinding("masktool", "ok", f"{__version__} ({Path(__file__).parents[1]})", needed=True)


def check_package(module: str, distribution: str, *, needed: bool) -> Iterator[DoctorFinding]:
    """Imports a module, since an installed package may still be broken."""
    version = find_version(distribution)
    install = f"{PIP} --upgrade {distribution if needed else ' '.join(OPTIONAL.values())}"  # torch's must fit together
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            detail = "not installed" if needed else "not installed; only exporting from PyTorch needs it"
            yield DoctorFinding(distribution, "absent", detail, install, needed)
            return
        yield DoctorFinding(distribution, "broken", f"{version}: {describe_exception(error)}", install, needed)
    except Exception as error:  # a broken package may raise anything at import
        yield DoctorFinding(distribution, "broken", f"{version}: {describe_exception(error)}", install, needed)
    else:
        yield DoctorFinding(distribution, "ok", version, needed=needed)


def check_runtime() -> Iterator[DoctorFinding]:
    """Imports ONNX Runtime and names the distribution that it comes from."""
    from masktool.runtime.providers import import_onnxruntime

    names = find_runtime_distributions()
    install = f"{PIP} --force-reinstall --no-deps {choose_runtime(names)}"
    try:
        version = import_onnxruntime().__version__
    except MasktoolError as error:
        yield DoctorFinding(
            RUNTIME_MODULE, "broken" if names else "absent", describe_exception(error.__cause__ or error), install, True
        )
        return
    detail = ", ".join(f"{name} {find_version(name)}" for name in names) or "of unknown origin"
    yield DoctorFinding(RUNTIME_MODULE, "ok", f"{version} ({detail})", needed=True)


def check_overlay() -> Iterator[DoctorFinding]:
    """Warns of distributions of ONNX Runtime installed over each other, whose files overwrite one another."""
    names = find_runtime_distributions()
    if len(names) > 1:
        keep = choose_runtime(names)
        yield DoctorFinding(
            "one runtime",
            "warning",
            f"{' and '.join(names)} are installed over each other; the files of one hide the other's providers",
            f"python -m pip uninstall -y {' '.join(names)} && {PIP} {keep}",
        )


def check_telemetry() -> Iterator[DoctorFinding]:
    """Says whether ONNX Runtime was told to keep no device identifier and to queue and send no events."""
    value = os.environ.get(TELEMETRY_SWITCH)
    if value == "1":
        yield DoctorFinding("telemetry", "ok", "ONNX Runtime's is off, unless it was imported before masktool")
    else:
        yield DoctorFinding(
            "telemetry",
            "warning",
            f"ONNX Runtime may keep a device identifier and send events: {TELEMETRY_SWITCH}={value}",
            f"unset {TELEMETRY_SWITCH}",
        )


def check_model() -> Iterator[DoctorFinding]:
    """Runs the built-in model under a mask, through the session that ``masktool explain`` uses."""
    import numpy as np

    from masktool.demo import model_path
    from masktool.runtime import MaskedSession

    name = "demo model"
    try:
        with MaskedSession(model_path(), providers="cpu") as session:
            shape = [length or 1 for length in session.input_shape]
            scores = session.scores(np.zeros(shape, np.float32), np.ones((2, 1, *shape[2:])))
        yield DoctorFinding(name, "ok", f"runs under a mask, {scores.shape[1]} classes", needed=True)
    except Exception as error:  # whatever is wrong, the report goes on
        fix = f"{PIP} --force-reinstall --no-deps masktool"
        yield DoctorFinding(name, "broken", describe_exception(error), fix, needed=True)
