"""Opens ONNX Runtime sessions on the provider that was asked for, and says why when it cannot.

ONNX Runtime lists a GPU provider as available when it was built with it, falls back to the CPU when it does not load,
and leaves the reason in its log. So a provider counts here only when the opened session names it, and the log is read
for the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from masktool.data_files import check_readable
from masktool.errors import MasktoolError, first_line
from masktool.external_weights import check_named_files
from masktool.messages import parameter
from masktool.option_checks import check_count

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
PROVIDER_OF_CHOICE = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
LOG_ERRORS_ONLY, LOG_FATAL_ONLY = 3, 4
"""ONNX Runtime's severities that leave out warnings, such as the one that the mask is an initializer that can be fed,
and errors too, which reach us as exceptions; why another provider than the CPU's does not load its log alone says."""
NO_CUDA_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of the driver's interface."""


class OpenedSession(NamedTuple):
    """An ONNX Runtime session, and the reason why it does not run on the GPU where the choice was ``auto``."""

    session: Any
    note: str | None


def open_on_providers(
    path: Path, providers: str | Sequence[str] | None = None, threads: int | None = None
) -> OpenedSession:
    """Opens an ONNX file on the providers that were asked for; arguments as for :func:`masktool.load`.

    Raises:
        MasktoolError: the file cannot be read as an ONNX model, or an asked-for provider cannot load.
    """
    check_readable(path, "an ONNX model")
    check_named_files(path)
    if threads is not None:
        check_count("threads", threads)
    if not providers or providers == "auto":
        return open_automatically(path, threads)
    wanted = [resolve_provider(name) for name in ([providers] if isinstance(providers, str) else providers)]
    if set(wanted) <= {CPU}:
        return OpenedSession(create_session(path, [CPU], threads), None)
    session, reason = try_providers(path, wanted, threads)
    if session is None:
        raise MasktoolError(
            "provider cannot load",
            where=", ".join(wanted),
            got=reason,
            fix="`masktool doctor` tells how to mend it; " + parameter("providers", "auto") + " takes what works",
        )
    return OpenedSession(session, None)


def open_automatically(path: Path, threads: int | None) -> OpenedSession:
    """Opens an ONNX file on CUDA where CUDA really loads, else on the CPU with a note of the reason."""
    reason: str | None = find_missing_build(CUDA) or find_driver_obstacle()
    if reason is None:
        session, reason = try_providers(path, [CUDA], threads)
        if session is not None:
            return OpenedSession(session, None)
    return OpenedSession(create_session(path, [CPU], threads), f"no CUDA: {reason}")


def try_providers(path: Path, wanted: Sequence[str], threads: int | None) -> tuple[Any, str | None]:
    """Returns (session, None) when every wanted provider loads, else (None, the reason).

    Raises:
        MasktoolError: the file cannot be opened on the CPU either.
    """
    if missing := next(filter(None, map(find_missing_build, wanted)), None):
        return None, missing
    preload_libraries()
    session, failure = None, ""
    with native_stderr() as log:
        try:
            session = make_session(path, list(dict.fromkeys([*wanted, CPU])), threads)
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
            failure = runtime_reason(error)
    if session is not None and set(wanted) <= set(session.get_providers()):
        return session, None
    if session is None:
        create_session(path, [CPU], threads)  # tells a damaged file from a provider that does not load
    obstacles = [
        find_driver_obstacle() if {CUDA, TENSORRT} & set(wanted) else None,
        read_reason(log.getvalue()) or failure,
    ]
    return None, "; ".join(filter(None, obstacles)) or "ONNX Runtime fell back to the CPU without a reason"


def create_session(path: Path, providers: Sequence[str], threads: int | None) -> Any:
    """Opens an ONNX file on providers that load.

    Raises:
        MasktoolError: ONNX Runtime cannot read the file.
    """
    try:
        return make_session(path, providers, threads)
    except Exception as error:  # as above: no common base
        if "external data" in str(error).lower():
            fix = f"the model's weights stand in a file beside it, such as {path.name}.data; copy that too"
        else:
            fix = "the file may be damaged, truncated or of another kind"
        raise MasktoolError(
            "not an ONNX model that ONNX Runtime can open", where=path, got=runtime_reason(error), fix=fix
        ) from error


def make_session(path: Path, providers: Sequence[str], threads: int | None) -> Any:
    """Opens an ONNX file with the options that every masktool session has."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY if set(providers) <= {CPU} else LOG_ERRORS_ONLY
    options.use_deterministic_compute = True
    if threads is not None:
        options.intra_op_num_threads = threads
    # Its Python fallback would print on stdout, and go on without the provider.
    return onnxruntime.InferenceSession(str(path), options, providers=list(providers), enable_fallback=0)


def import_onnxruntime() -> Any:
    """Imports ONNX Runtime, without the warnings about devices that it writes on some machines.

    Raises:
        MasktoolError: ONNX Runtime is missing or broken.
    """
    try:
        with contextlib.nullcontext() if "onnxruntime" in sys.modules else native_stderr():
            import onnxruntime

        _ = onnxruntime.InferenceSession  # absent when two distributions were installed over each other
    except (ImportError, AttributeError) as error:
        raise MasktoolError(
            "ONNX Runtime cannot be imported", got=error, fix="`masktool doctor` tells how to mend it"
        ) from error
    return onnxruntime


def resolve_provider(name: str) -> str:
    """Returns ONNX Runtime's name of a provider, given by that name or by masktool's short one.

    Raises:
        MasktoolError: neither masktool nor the installed ONNX Runtime knows the name.
    """
    if name in PROVIDER_OF_CHOICE:
        return PROVIDER_OF_CHOICE[name]
    onnxruntime = import_onnxruntime()
    if name not in onnxruntime.get_all_providers():
        known = ["auto", *PROVIDER_OF_CHOICE, *onnxruntime.get_available_providers()]
        raise MasktoolError("unknown provider", where=name, expected=f"one of {', '.join(known)}")
    return name


def find_missing_build(provider: str) -> str | None:
    """Returns a sentence where the installed ONNX Runtime was built without a provider; None where it has that."""
    onnxruntime = import_onnxruntime()
    if provider in onnxruntime.get_available_providers():
        return None
    return f"the installed ONNX Runtime {onnxruntime.__version__} is built without {provider}"


def find_driver_obstacle() -> str | None:
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


def preload_libraries() -> None:
    """Loads CUDA and cuDNN from NVIDIA's Python packages, if installed; ONNX Runtime itself reports what fails."""
    onnxruntime = import_onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()


@contextlib.contextmanager
def native_stderr() -> Iterator[io.StringIO]:
    """Yields a buffer that holds, once the block has ended, what native code wrote on file descriptor 2.

    Without a usable descriptor (a windowed application) nothing is collected.
    """
    text = io.StringIO()
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError):
        yield text
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            text.write(sink.read().decode(errors="replace"))


def read_reason(log: str) -> str:
    """Returns the reason for a failure from ONNX Runtime's log: the loader's message, else the first error."""
    if found := re.search(r"with error: (.+)", log):
        return found[1].strip()
    if found := re.search(r"\[E:onnxruntime:[^\]]*\] *(.+)", log):
        return found[1].removesuffix("\x1b[m").strip()
    return ""


def runtime_reason(error: BaseException) -> str:
    """Returns the first line of an error's text, without the status and the path that ONNX Runtime puts in front."""
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))
    return re.sub(r"^Load model from .* failed: ?", "", line)
