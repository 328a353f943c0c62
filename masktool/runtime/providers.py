"""Opens ONNX Runtime sessions on the provider that was asked for, and says why when it cannot.

ONNX Runtime lists a GPU provider as available when it was built with it, falls back to the CPU when it does not load,
and leaves the reason in its log. So a provider counts here only when the opened session names it, and the log is read
for the reason.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from masktool.data_files import check_readable
from masktool.errors import MasktoolError
from masktool.execution_providers import AUTO, CPU, NAMES, PROVIDERS, ExecutionProvider, know_provider
from masktool.external_weights import check_named_files
from masktool.messages import parameter
from masktool.option_checks import check_count
from masktool.runtime.drivers import find_driver_obstacle
from masktool.runtime.importing import import_onnxruntime
from masktool.runtime.native_log import native_stderr, read_reason, runtime_reason
from masktool.runtime.plugins import describe_plugin, has_plugin, list_devices, lists_gpu
from masktool.runtime.provider_options import (
    ChosenProvider,
    choose_providers,
    names_of_options,
    options_for_plugin,
    refuse_without_provider,
)

LOG_ERRORS_ONLY, LOG_FATAL_ONLY = 3, 4
"""ONNX Runtime's severities that leave out warnings, such as the one that the mask is an initializer that can be fed,
and errors too, which reach us as exceptions; why another provider than the CPU's does not load its log alone says."""
LEFT_OUT_OPTIMISATIONS = "optimization.disable_specified_optimizers"
"""ONNX Runtime's name of the entry of a session's configuration that lists them."""


class OpenedSession(NamedTuple):
    """An ONNX Runtime session.

    Attributes:
        session: session of ONNX Runtime.
        options: options of its providers as ONNX Runtime reads them, by name.
        note: reasons why ``auto`` took none of the providers that it prefers; None where there are none.
    """

    session: Any
    options: Mapping[str, str]
    note: str | None = None


def open_on_providers(
    path: Path,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    options: Mapping[str, object] | None = None,
) -> OpenedSession:
    """Opens an ONNX file on the providers that were asked for; arguments as for :func:`masktool.load`.

    Raises:
        MasktoolError: the file cannot be read as an ONNX model, an asked-for provider cannot load, or an option is
            unknown.
    """
    check_readable(path, "an ONNX model")
    check_named_files(path)
    if threads is not None:
        check_count("threads", threads)
    if not providers or providers == AUTO:
        refuse_without_provider(options)
        return open_automatically(path, threads)
    names = [providers] if isinstance(providers, str) else providers
    wanted = choose_providers(list(dict.fromkeys(map(resolve_provider, names))), options)
    if all(each.provider == CPU for each in wanted):
        return OpenedSession(create_session(path, wanted, threads), {})
    session, reason = try_providers(path, wanted, threads)
    if session is None:
        raise MasktoolError(
            "provider cannot load",
            where=", ".join(each.provider.runtime_name for each in wanted),
            got=reason,
            fix="`masktool doctor` tells how to mend it; " + parameter("providers", AUTO) + " takes what works",
        )
    return OpenedSession(session, {name: value for each in wanted for name, value in each.options.items()})


def open_automatically(path: Path, threads: int | None) -> OpenedSession:
    """Opens an ONNX file on the first provider that really loads, in the order of preference, else on the CPU."""
    reasons: list[str] = []
    absent: list[str] = []
    for provider in PROVIDERS:
        if provider == CPU or provider.by_name_only or sys.platform not in provider.systems:
            continue
        if not has_provider(provider):
            absent.append(provider.title)
            continue
        session, reason = try_automatically(path, provider, threads)
        if session is not None:
            return OpenedSession(session, dict(provider.defaults), "; ".join(reasons) or None)
        reasons.append(f"no {provider.title}: {reason}")
    if absent:
        reasons.append(f"not installed: {', '.join(absent)}")
    return OpenedSession(create_session(path, choose_providers([CPU]), threads), {}, "; ".join(reasons) or None)


def try_automatically(path: Path, provider: ExecutionProvider, threads: int | None) -> tuple[Any, str | None]:
    """Returns (session, None) when a provider loads that nobody asked for, else (None, the reason)."""
    if obstacle := find_driver_obstacle(provider.driver) or find_missing_build(provider):
        return None, obstacle
    if provider.needs_listed_gpu and not lists_gpu(provider):
        return None, "ONNX Runtime lists no GPU for it"
    return try_providers(path, choose_providers([provider]), threads)


def try_providers(path: Path, wanted: Sequence[ChosenProvider], threads: int | None) -> tuple[Any, str | None]:
    """Returns (session, None) when every wanted provider loads, else (None, the reason).

    Raises:
        MasktoolError: the file cannot be opened on the CPU either.
    """
    for provider, _ in wanted:
        if missing := find_missing_build(provider):
            obstacle = find_driver_obstacle(provider.driver) if has_provider(provider) else None
            return None, "; ".join(filter(None, (missing, obstacle)))
    if any(each.provider.driver == "nvidia" for each in wanted):
        preload_libraries()
    session, failure = None, ""
    behind = [] if any(each.provider == CPU for each in wanted) else choose_providers([CPU])
    with native_stderr() as log:
        try:
            session = make_session(path, [*wanted, *behind], threads)
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base
            failure = runtime_reason(error)
    if session is not None and {each.provider.runtime_name for each in wanted} <= set(session.get_providers()):
        return session, None
    if session is None:
        create_session(path, choose_providers([CPU]), threads)  # tells a damaged file from a provider that fails
    obstacles = [find_driver_obstacle(each.provider.driver) for each in wanted]
    reasons = dict.fromkeys([*obstacles, read_reason(log.getvalue()) or failure])
    return None, "; ".join(filter(None, reasons)) or "ONNX Runtime fell back to the CPU without a reason"


def create_session(path: Path, chosen: Sequence[ChosenProvider], threads: int | None) -> Any:
    """Opens an ONNX file on providers that load.

    Raises:
        MasktoolError: ONNX Runtime cannot read the file.
    """
    try:
        return make_session(path, chosen, threads)
    except Exception as error:  # as above: no common base
        if "external data" in str(error).lower():
            fix = f"the model's weights stand in a file beside it, such as {path.name}.data; copy that too"
        else:
            fix = "the file may be damaged, truncated or of another kind"
        raise MasktoolError(
            "not an ONNX model that ONNX Runtime can open", where=path, got=runtime_reason(error), fix=fix
        ) from error


def open_beside(model: bytes, memory: str, options: Mapping[str, str], threads: int | None) -> Any:
    """Opens a model in memory on a provider that computes on the same device's memory as a session that is open.

    Args:
        model: a small model; where several providers compute on that memory, it runs on the one that prepares least.
        memory: ONNX Runtime's name of the device.
        options: options of the open session's providers; those that the provider has too are taken.
        threads: number of threads that one node may use, as for :func:`masktool.load`.
    """
    provider = next(each for each in PROVIDERS if each.memory == memory)
    known = {name: value for name, value in options.items() if name in names_of_options(provider)}
    return make_session(model, choose_providers([provider], known), threads)


def make_session(model: Path | bytes, chosen: Sequence[ChosenProvider], threads: int | None) -> Any:
    """Opens an ONNX file, or a model in memory, with the options that every masktool session has."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    on_cpu = all(each.provider == CPU for each in chosen)
    options.log_severity_level = LOG_FATAL_ONLY if on_cpu else LOG_ERRORS_ONLY
    # With its plan of memory, made in the first run of every shape, ONNX Runtime takes all of it a second time, and is
    # slower: buffers that are taken anew are more often in the cache still (docs/performance.md).
    options.enable_mem_pattern = not on_cpu
    options.use_deterministic_compute = True
    if threads is not None:
        options.intra_op_num_threads = threads
    if left_out := [name for each in chosen for name in each.provider.faulty_fusions]:
        options.add_session_config_entry(LEFT_OUT_OPTIMISATIONS, ";".join(left_out))
    # Its Python fallback would print on stdout, and go on without the provider.
    opened = model if isinstance(model, bytes) else str(model)
    if all(map(is_built_in, (each.provider for each in chosen))):
        named = [name_provider(each, options) for each in chosen]
        return onnxruntime.InferenceSession(opened, options, providers=named, enable_fallback=0)
    for each in chosen:
        add_provider(each, options)
    return onnxruntime.InferenceSession(opened, options, enable_fallback=0)


def name_provider(chosen: ChosenProvider, options: Any) -> tuple[str, dict[str, str]]:
    """Returns a provider's name and options for a session; options that belong into the session's own go there."""
    provider, values = chosen
    if provider.entry_prefix is None:
        return provider.runtime_name, dict(values)
    for name, value in values.items():
        options.add_session_config_entry(provider.entry_prefix + name, value)
    return provider.runtime_name, {}


def add_provider(chosen: ChosenProvider, options: Any) -> None:
    """Adds a provider to a session's options, which ONNX Runtime wants where one of them is a plugin."""
    if chosen.provider == CPU:
        return  # stands behind all others without being named
    if is_built_in(chosen.provider):
        options.add_provider(*name_provider(chosen, options))
    else:
        options.add_provider_for_devices(list_devices(chosen.provider)[:1], options_for_plugin(chosen))


def resolve_provider(name: str) -> ExecutionProvider:
    """Returns a provider by masktool's name or ONNX Runtime's.

    Raises:
        MasktoolError: neither masktool nor the installed ONNX Runtime knows the name.
    """
    if known := know_provider(name):
        return known
    onnxruntime = import_onnxruntime()
    if name not in onnxruntime.get_all_providers():
        foreign = [each for each in onnxruntime.get_available_providers() if know_provider(each) is None]
        raise MasktoolError("unknown provider", where=name, expected=f"one of {', '.join([*NAMES, *foreign])}")
    return ExecutionProvider(name=name, runtime_name=name, title=name)


def is_built_in(provider: ExecutionProvider) -> bool:
    """Tells whether the installed ONNX Runtime was built with a provider."""
    return provider.runtime_name in import_onnxruntime().get_available_providers()


def has_provider(provider: ExecutionProvider) -> bool:
    """Tells whether a provider is there, built in or as a plugin."""
    return is_built_in(provider) or has_plugin(provider)


def find_missing_build(provider: ExecutionProvider) -> str | None:
    """Returns a sentence where a provider is neither built in nor a plugin with a device; None where it is."""
    onnxruntime = import_onnxruntime()
    if is_built_in(provider):
        return None
    without = f"the installed ONNX Runtime {onnxruntime.__version__} is built without {provider.runtime_name}"
    if provider.plugin is None:
        return without
    if not has_plugin(provider):
        return f"{without}, and {provider.package} is not installed"
    try:
        found = list_devices(provider)
    except Exception as error:  # of the package's import, or of its library, whatever is wrong with it
        return f"{describe_plugin(provider)} cannot be loaded: {runtime_reason(error)}"
    return None if found else f"{describe_plugin(provider)} finds no device on this machine"


def preload_libraries() -> None:
    """Loads CUDA and cuDNN from NVIDIA's Python packages, if installed; ONNX Runtime itself reports what fails."""
    onnxruntime = import_onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
