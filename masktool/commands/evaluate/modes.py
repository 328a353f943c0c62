"""Options that choose masking modes, for the subcommands that compare one network in several modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


def mode_options(defaults: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds ``--mode`` and ``--also``, which the command gets as ``modes`` and ``also``."""
    mode = click.option(
        "--mode",
        "modes",
        multiple=True,
        metavar="NAME",
        help="Masking mode, repeatable: layer (layer-cell, layer-published: with that rule), partial or a baseline of "
        "fill such as black, grey, blur or R,G,B.  "
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
