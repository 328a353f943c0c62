"""``masktool doctor``: what is installed, what really works, and the command that mends the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import click

from masktool import TELEMETRY_SWITCH, __version__
from masktool.commands.options import json_option
from masktool.errors import MasktoolError, describe_exception
from masktool.printable import printable

NEEDED = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxscript": "onnxscript",
    "click": "click",
    "PIL": "pillow",
    "rich": "rich",
    "skimage": "scikit-image",
}
"""Distribution of each module that masktool needs; ONNX Runtime has a check of its own."""
OPTIONAL = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "safetensors": "safetensors"}
"""Those that only exporting from PyTorch needs."""
RUNTIME_MODULE = "onnxruntime"
PIP = "python -m pip install"
State = Literal["ok", "broken", "absent", "warning"]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: of what was checked.
        state: ``ok``; ``broken``: installed but fails; ``absent``; ``warning``: works, but for how long.
        detail: version or reason.
        fix: the command or step that mends it; None where there is nothing to mend.
        needed: whether exporting an ``.onnx`` and explaining with it depends on it.
    """

    name: str
    state: State
    detail: str
    fix: str | None = None
    needed: bool = False


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show versions and providers, and how to mend what is broken.

    The exit code is 0 when an .onnx can be exported and explained with, 1 when something needed for that is broken.
    """
    findings = []
    for check in list_checks():
        for finding in check():
            findings.append(finding)
            if not as_json:
                click.echo(printable(write_line(finding), keep="\n"))
    works = not any(finding.needed and finding.state in ("broken", "absent") for finding in findings)
    if as_json:
        document = {"works": works, "findings": [dataclasses.asdict(finding) for finding in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("The main path works." if works else "Something needed is broken; mend it as written above.")
    context.exit(0 if works else 1)


Check = Callable[[], Iterator[CheckResult]]


def list_checks() -> list[Check]:
    """Returns the checks in the order of the report."""
    return [
        check_python,
        *(functools.partial(check_package, module, name, needed=True) for module, name in NEEDED.items()),
        check_runtime,
        check_overlay,
        check_telemetry,
        check_cpu,
        check_cuda,
        check_tensorrt,
        check_model,
        *(functools.partial(check_package, module, name, needed=False) for module, name in OPTIONAL.items()),
    ]


def write_line(finding: CheckResult) -> str:
    """Returns a finding as one line, with the fix on a second one."""
    line = f"{finding.state:8}  {finding.name:13}  {finding.detail}"
    if finding.fix:
        line += f"\n{'':10}{'':15}mend: {finding.fix}"
    return line


def check_python() -> Iterator[CheckResult]:
    """Names the interpreter, the system and masktool itself."""
    system = f"{platform.system()} {platform.machine()}"
    yield CheckResult("python", "ok", f"{platform.python_version()} on {system} ({sys.executable})", needed=True)
    yield CheckResult("masktool", "ok", f"{__version__} ({Path(__file__).parents[1]})", needed=True)


def check_package(module: str, distribution: str, *, needed: bool) -> Iterator[CheckResult]:
    """Imports a module, since an installed package may still be broken."""
    version = find_version(distribution)
    install = f"{PIP} --upgrade {distribution if needed else ' '.join(OPTIONAL.values())}"  # torch's must fit together
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            detail = "not installed" if needed else "not installed; only exporting from PyTorch needs it"
            yield CheckResult(distribution, "absent", detail, install, needed)
            return
        yield CheckResult(distribution, "broken", f"{version}: {describe_exception(error)}", install, needed)
    except Exception as error:  # a broken package may raise anything at import
        yield CheckResult(distribution, "broken", f"{version}: {describe_exception(error)}", install, needed)
    else:
        yield CheckResult(distribution, "ok", version, needed=needed)


def check_runtime() -> Iterator[CheckResult]:
    """Imports ONNX Runtime and names the distribution that it comes from."""
    from masktool.runtime.providers import import_onnxruntime

    names = find_runtime_distributions()
    install = f"{PIP} --force-reinstall --no-deps {choose_runtime(names)}"
    try:
        version = import_onnxruntime().__version__
    except MasktoolError as error:
        yield CheckResult(
            RUNTIME_MODULE, "broken" if names else "absent", describe_exception(error.__cause__ or error), install, True
        )
        return
    detail = ", ".join(f"{name} {find_version(name)}" for name in names) or "of unknown origin"
    yield CheckResult(RUNTIME_MODULE, "ok", f"{version} ({detail})", needed=True)


def check_overlay() -> Iterator[CheckResult]:
    """Notices distributions of ONNX Runtime installed over each other, so that the files of both mix."""
    names = find_runtime_distributions()
    if len(names) > 1:
        keep = choose_runtime(names)
        yield CheckResult(
            "one runtime",
            "warning",
            f"{' and '.join(names)} are installed over each other; the files of one hide the other's providers",
            f"python -m pip uninstall -y {' '.join(names)} && {PIP} {keep}",
        )


def check_telemetry() -> Iterator[CheckResult]:
    """Says whether ONNX Runtime was told to keep no device identifier and to queue and send no events."""
    value = os.environ.get(TELEMETRY_SWITCH)
    if value == "1":
        yield CheckResult("telemetry", "ok", "ONNX Runtime's is off, unless it was imported before masktool")
    else:
        yield CheckResult(
            "telemetry",
            "warning",
            f"ONNX Runtime may keep a device identifier and send events: {TELEMETRY_SWITCH}={value}",
            f"unset {TELEMETRY_SWITCH}",
        )


def check_cpu() -> Iterator[CheckResult]:
    """Runs a model on the CPU."""
    fix = f"{PIP} --force-reinstall --no-deps {choose_runtime(find_runtime_distributions())}"
    yield check_provider("CPU", "CPUExecutionProvider", fix, needed=True)


def check_cuda() -> Iterator[CheckResult]:
    """Runs a model with CUDA."""
    yield check_provider("CUDA", "CUDAExecutionProvider", f'{PIP} "onnxruntime-gpu[cuda,cudnn]"', needed=False)


def check_tensorrt() -> Iterator[CheckResult]:
    """Runs a model with TensorRT."""
    fix = f"{PIP} tensorrt-cu{find_cuda_major()}, with its directory tensorrt_libs on LD_LIBRARY_PATH (PATH on Windows)"
    yield check_provider("TensorRT", "TensorrtExecutionProvider", fix, needed=False)


def check_model() -> Iterator[CheckResult]:
    """Runs the built-in model under a mask, through the session that ``masktool explain`` uses."""
    import numpy as np

    from masktool import demo
    from masktool.runtime import load

    name = "demo model"
    try:
        with load(demo.model_path(), "cpu") as session:
            shape = [length or 1 for length in session.input_shape]
            scores = session.scores(np.zeros(shape, np.float32), np.ones((2, 1, *shape[2:])))
        yield CheckResult(name, "ok", f"runs under a mask, {scores.shape[1]} classes", needed=True)
    except Exception as error:  # whatever is wrong, the report goes on
        fix = f"{PIP} --force-reinstall --no-deps masktool"
        yield CheckResult(name, "broken", describe_exception(error), fix, needed=True)


def check_provider(name: str, provider: str, fix: str, *, needed: bool) -> CheckResult:
    """Opens and runs a small model on one provider; that it is listed as available says only that it was built in."""
    from masktool.runtime.providers import find_driver_obstacle, find_missing_build, try_providers

    try:
        if missing := find_missing_build(provider):
            return CheckResult(name, "absent", missing, fix, needed)
        with tempfile.TemporaryDirectory() as directory:
            session, reason = try_providers(write_probe(Path(directory)), [provider], None)
        if session is None:
            if not needed and find_driver_obstacle():
                fix = f"needs an NVIDIA GPU with its driver, then {fix}"
            return CheckResult(
                name, "absent" if not needed else "broken", f"built in, does not load: {reason}", fix, needed
            )
        session.run(None, {"x": [1.0]})
    except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
        return CheckResult(name, "broken", describe_exception(error), fix, needed)
    return CheckResult(name, "ok", "loads and runs", needed=needed)


def write_probe(directory: Path) -> Path:
    """Writes the smallest model that computes something."""
    import onnx.parser

    path = directory / "probe.onnx"
    text = '<ir_version: 8, opset_import: ["": 18]> probe (float[N] x) => (float[N] y) { y = Add(x, x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def find_version(distribution: str) -> str:
    """Returns a distribution's version, or words for its absence."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def find_runtime_distributions() -> list[str]:
    """Returns the installed distributions that hold the module ``onnxruntime``."""
    return sorted(set(importlib.metadata.packages_distributions().get(RUNTIME_MODULE, ())))


def find_cuda_major() -> str:
    """Returns the major version of CUDA that the installed ONNX Runtime was built with, or nothing."""
    from masktool.runtime.providers import import_onnxruntime

    try:
        return str(getattr(import_onnxruntime(), "cuda_version", "")).split(".")[0]
    except MasktoolError:  # has been reported by its own check
        return ""


def choose_runtime(names: list[str]) -> str:
    """Returns the one distribution to keep: a build for an accelerator holds the CPU provider too."""
    return next((name for name in names if name != RUNTIME_MODULE), RUNTIME_MODULE)
