"""What is known of an execution provider: its names, how it is had, and its options."""

from __future__ import annotations

import dataclasses
from typing import Literal

Driver = Literal["nvidia", "amd", "vulkan"]
"""Drivers whose absence can be told before ONNX Runtime is asked."""
OptionKind = Literal["switch", "number", "text", "choice"]

HOST = "cpu"
"""ONNX Runtime's name of the host's own memory."""


@dataclasses.dataclass(frozen=True)
class ProviderOption:
    """One option of a provider, as ONNX Runtime names it.

    Attributes:
        name: ONNX Runtime's name of the option.
        meaning: what the option does, a sentence.
        default: ONNX Runtime's default in words; empty where it has none.
        kind: what is given: a ``switch`` is on or off, a ``number`` is whole and not negative, a ``choice`` is one of
            ``choices``.
        choices: values to choose from; empty unless the kind is ``choice``.
        captures: whether the option makes the provider record a run and repeat it, at fixed addresses and shapes.
    """

    name: str
    meaning: str
    default: str
    kind: OptionKind
    choices: tuple[str, ...] = ()
    captures: bool = False


@dataclasses.dataclass(frozen=True)
class ExecutionProvider:
    """An execution provider of ONNX Runtime.

    Attributes:
        name: masktool's name, as typed behind ``--provider``.
        runtime_name: ONNX Runtime's name.
        title: name in messages.
        devices: what the provider computes on, in words.
        package: distribution that brings the provider: a build of ONNX Runtime, or a plugin.
        plugin: module of the package where it is a plugin beside a build of ONNX Runtime; None for a build.
        plugin_options: names of the options that the plugin reads, where it ignores others that a build reads; None
            where it reads all.
        requirement: what pip is told to install; None where that is the package.
        besides: what must be there besides the package, in words; None for nothing.
        systems: operating systems that the package is for, as ``sys.platform`` names them.
        driver: driver without which the provider cannot load; None where none can be told.
        aliases: further names behind ``--provider``.
        on_gpu: whether the provider computes on a GPU wherever it loads, so that large batches pay.
        memory: ONNX Runtime's name of the device whose memory the provider computes on; None where it is not known, or
            inputs and outputs are the host's.
        makes_defaults_constant: whether the provider takes an input that has a default for a constant, so that whatever
            is fed there has no influence.
        faulty_fusions: ONNX Runtime's names of fusions of nodes that some versions of the provider compute wrong
            numbers for; they are left out.
        warm_up: what the first run of each shape costs, in words; None where that is not worth a word.
        kept_by: option that keeps what the first run makes, for later sessions; None where there is none.
        by_name_only: why ``auto`` does not take the provider; None where it does.
        needs_listed_gpu: whether ``auto`` takes the provider only where ONNX Runtime lists a GPU for it, because it
            loads on a driver in software as well.
        options: options of the provider.
        defaults: names of options and masktool's values of them, where these differ from ONNX Runtime's.
        trials: names and values of options that ``masktool doctor`` tries where the provider loads; ``FOLDER`` stands
            for a folder.
        switch_words: words for off and on that the provider reads.
        entry_prefix: prefix of the options where ONNX Runtime reads them from the session's configuration; None where
            they are given with the provider.
    """

    name: str
    runtime_name: str
    title: str
    devices: str = ""
    package: str = "onnxruntime"
    plugin: str | None = None
    plugin_options: tuple[str, ...] | None = None
    requirement: str | None = None
    besides: str | None = None
    systems: tuple[str, ...] = ("linux", "win32", "darwin")
    driver: Driver | None = None
    aliases: tuple[str, ...] = ()
    on_gpu: bool = True
    memory: str | None = None
    makes_defaults_constant: bool = False
    faulty_fusions: tuple[str, ...] = ()
    warm_up: str | None = None
    kept_by: str | None = None
    by_name_only: str | None = None
    needs_listed_gpu: bool = False
    options: tuple[ProviderOption, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    trials: tuple[tuple[tuple[str, str], ...], ...] = ()
    switch_words: tuple[str, str] = ("0", "1")
    entry_prefix: str | None = None


def switch_option(name: str, meaning: str, default: str = "", *, captures: bool = False) -> ProviderOption:
    """Returns an option that is on or off."""
    return ProviderOption(name, meaning, default, "switch", captures=captures)


def number_option(name: str, meaning: str, default: str = "") -> ProviderOption:
    """Returns an option that is a whole number."""
    return ProviderOption(name, meaning, default, "number")


def text_option(name: str, meaning: str, default: str = "") -> ProviderOption:
    """Returns an option that is any text, such as a path."""
    return ProviderOption(name, meaning, default, "text")


def choice_option(name: str, meaning: str, default: str = "", *, choices: tuple[str, ...]) -> ProviderOption:
    """Returns an option that is one of several words."""
    return ProviderOption(name, meaning, default, "choice", choices)
