"""Options of execution providers: checked against what ONNX Runtime knows, and spelled as it reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from masktool.errors import MasktoolError
from masktool.execution_providers.provider import ExecutionProvider, ProviderOption
from masktool.messages import OneOf, parameter
from masktool.option_checks import check_choice, check_count

SWITCHED_OFF = ("0", "false", "off")
SWITCHED_ON = ("1", "true", "on")


class ChosenProvider(NamedTuple):
    """A provider to open a session on, and values of its options as ONNX Runtime reads them, by name."""

    provider: ExecutionProvider
    options: Mapping[str, str]


def choose_providers(
    providers: Sequence[ExecutionProvider], given: Mapping[str, object] | None = None
) -> list[ChosenProvider]:
    """Returns providers with their options: those given, where a provider has them, else masktool's defaults.

    Args:
        providers: providers, the preferred first.
        given: values of options by ONNX Runtime's names; None for none.

    Raises:
        MasktoolError: none of the providers has an option, or its value is out of range.
    """
    given = given or {}
    refuse_captures(providers, given)
    known = {name: None for provider in providers for name in names_of_options(provider)}
    if unknown := [name for name in given if name not in known and not any(map(is_foreign, providers))]:
        raise MasktoolError(
            f"unknown option of {' and '.join(provider.title for provider in providers)}",
            where=", ".join(unknown),
            expected=f"some of {', '.join(known)}" if known else "none: it has no options",
        )
    return [ChosenProvider(provider, options_of(provider, given)) for provider in providers]


def options_for_plugin(chosen: ChosenProvider) -> dict[str, str]:
    """Returns the options that the plugin of a provider reads; those that masktool sets unasked may be among the rest.

    Raises:
        MasktoolError: an option is given that the plugin ignores.
    """
    provider, options = chosen
    if provider.plugin_options is None:
        return dict(options)
    read = {name: value for name, value in options.items() if name in provider.plugin_options}
    if ignored := sorted(set(options) - set(read) - set(dict(provider.defaults))):
        raise MasktoolError(
            f"{provider.package} ignores an option",
            where=", ".join(ignored),
            expected=f"some of {', '.join(provider.plugin_options)}",
        )
    return read


def refuse_captures(providers: Sequence[ExecutionProvider], given: Mapping[str, object]) -> None:
    """Raises MasktoolError where an option would have a provider record a run and repeat it.

    What is repeated reads the memory and has the shapes of the recorded run. ONNX Runtime gives every run of a session
    memory of its own, so that all batches would have the scores of one.
    """
    recording = {option.name for provider in providers for option in provider.options if option.captures}
    if asked := [name for name in given if name in recording]:
        raise MasktoolError(
            "no run can be recorded: it would read the first batch again, since every batch has memory of its own",
            where=", ".join(asked),
            fix="leave that out",
        )


def refuse_without_provider(given: Mapping[str, object] | None) -> None:
    """Raises MasktoolError where options of a provider are given and the provider is left to choice."""
    if given:
        raise MasktoolError(
            "options of a provider need the provider's name",
            where=", ".join(given),
            fix="add " + parameter("providers", OneOf(("cuda", "webgpu", "..."))),
        )


def names_of_options(provider: ExecutionProvider) -> list[str]:
    """Returns the names of a provider's options that a session can have."""
    return [option.name for option in provider.options if not option.captures]


def is_foreign(provider: ExecutionProvider) -> bool:
    """Tells whether masktool knows a provider by its name alone, so that ONNX Runtime has to judge its options."""
    return not provider.devices


def options_of(provider: ExecutionProvider, given: Mapping[str, object]) -> dict[str, str]:
    """Returns a provider's options with their values as ONNX Runtime reads them."""
    if is_foreign(provider):
        return {name: str(value) for name, value in given.items()}
    found = dict(provider.defaults)
    for option in provider.options:
        if option.name in given:
            found[option.name] = spell_option(option, given[option.name], provider.switch_words)
    return found


def spell_option(option: ProviderOption, value: object, switch_words: tuple[str, str]) -> str:
    """Returns the value of an option as ONNX Runtime reads it.

    Raises:
        MasktoolError: the value is out of range.
    """
    written = str(value).strip()
    if option.kind == "choice":
        check_choice(option.name, written, option.choices)
    elif option.kind == "number":
        check_count(option.name, int(written) if written.isdecimal() else value, 0)
    elif option.kind == "switch":
        check_choice(option.name, written.lower(), (*SWITCHED_OFF, *SWITCHED_ON))
        return switch_words[written.lower() in SWITCHED_ON]
    return written
