"""Imports of the packages of the extra ``evaluate``, which a plain installation lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from masktool.errors import MasktoolError

INSTALL = "pip install 'masktool[evaluate]'"


@contextlib.contextmanager
def require_extra(purpose: str) -> Iterator[None]:
    """Turns the failed import of a package of the extra within the block into a MasktoolError with the command to run.

    Args:
        purpose: purpose that the package is needed for, such as "drawing charts".

    Raises:
        MasktoolError: the package is not installed; the message has the command to run.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MasktoolError(f"{purpose} needs {error.name}, which is not installed", fix=f"run {INSTALL}") from error
