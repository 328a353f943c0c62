"""Imports of the packages of an extra, such as ``evaluate``, which a plain installation lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from masktool.errors import MasktoolError

INSTALL = "pip install 'masktool[{}]'"


@contextlib.contextmanager
def require_extra(purpose: str, extra: str = "evaluate") -> Iterator[None]:
    """Turns the failed import of a package of an extra within the block into a MasktoolError with the command to run.

    Args:
        purpose: purpose that the package is needed for, such as "drawing charts".
        extra: extra that brings the package.

    Raises:
        MasktoolError: the package is not installed; the message has the command to run.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        fix = f"run {INSTALL.format(extra)}"
        raise MasktoolError(f"{purpose} needs {error.name}, which is not installed", fix=fix) from error
