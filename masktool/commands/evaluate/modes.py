"""One network in several masking modes: the options that name them, for commands that compare modes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from masktool.commands.evaluate.common import EvaluationRequest, exported_mode
from masktool.errors import MasktoolError
from masktool.evaluation.named_models import NamedModel
from masktool.runtime.session import load


def mode_options(defaults: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds ``--mode`` and ``--also``, which give ``modes`` and ``also``."""
    mode = click.option(
        "--mode",
        "modes",
        multiple=True,
        metavar="NAME",
        help="Masking mode, repeatable: layer, partial or a baseline of fill such as black, grey, blur or R,G,B.  "
        f"[default: {', '.join(defaults)}; of an exported MODEL its own]",
    )
    also = click.option(
        "--also",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="MODEL exported in another mode, repeatable.",
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return mode(also(function))

    return decorate


def open_modes(
    request: EvaluationRequest,
    stack: contextlib.ExitStack,
    modes: Sequence[str],
    also: Sequence[Path],
    defaults: Sequence[str],
    gradient: bool = False,
    everywhere: bool = False,
) -> list[NamedModel]:
    """Opens a network in the modes to compare.

    Args:
        request: names the model.
        stack: closes the sessions.
        modes: that were named.
        also: files that hold the network in further modes.
        defaults: modes of a plain model where none were named.
        gradient: whether the first one must hold gradients; in the others they would only cost time,
        everywhere: unless all of them explain.

    Raises:
        MasktoolError: a file that is not exported, or two of one mode; else as ``EvaluationRequest.open_models``.
    """
    names = list(dict.fromkeys(modes or ([] if exported_mode(request.model) else defaults)))
    models = request.open_models(stack, names[:1] or None, gradient)
    if names[1:]:
        models += request.open_models(stack, names[1:], gradient and everywhere)
    for path in also:
        session = stack.enter_context(load(path, request.provider, request.threads))
        models.append(NamedModel(session.metadata.baseline or session.metadata.masking, session))
    found = [model.name for model in models]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise MasktoolError("one masking mode twice", where="--also", got=", ".join(twice))
    return models
