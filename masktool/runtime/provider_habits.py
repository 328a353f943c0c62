"""What providers do differently with a file: inputs that they take for constants, and what a first run costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from masktool.contract import MASK_INPUT
from masktool.errors import MasktoolError
from masktool.execution_providers import ExecutionProvider, know_provider
from masktool.messages import parameter


def make_defaults_constant(providers: Sequence[str]) -> bool:
    """Tells whether one of ONNX Runtime's providers takes an input that has a default for a constant."""
    return any(known.makes_defaults_constant for known in map(know_provider, providers) if known is not None)


def describe_warm_up(provider: ExecutionProvider, options: Mapping[str, str]) -> str | None:
    """Returns what the first run of each shape costs on a provider, and how to keep what it makes; None for nothing."""
    if provider.warm_up is None or provider.kept_by is None:
        return provider.warm_up
    if options.get(provider.kept_by, "0") != "0":
        return f"{provider.warm_up}, and keeps that"
    return f"{provider.warm_up}; the option {provider.kept_by} keeps that"


def refuse_constants(fed: Iterable[str], provider: str, path: Path) -> None:
    """Raises MasktoolError where inputs are fed that a provider takes for constants."""
    if names := sorted(fed):
        raise MasktoolError(
            "what is fed would have no influence: the provider takes an input that may be left out for a constant",
            where=f"{path}, {provider}",
            got=", ".join(names),
            fix="export the model with " + parameter("mask_required", True) if names == [MASK_INPUT] else None,
        )
