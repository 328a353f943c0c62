"""Whether files can be written into a folder, tried before long work that ends in writing them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from masktool.errors import MasktoolError
from masktool.messages import parameter

CHOICE = parameter("path")
"""The parameter that chooses most outputs."""


def check_writable(directory: Path, choice: str = CHOICE) -> None:
    """Raises a MasktoolError unless files can be written into a directory, which need not exist yet.

    Args:
        directory: directory that files will be written into.
        choice: the parameter that chose the directory, as a message names it.
    """
    try:
        existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise NotADirectoryError(None, "Not a directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise MasktoolError(
            "cannot write into the output directory",
            where=directory,
            got=error.strerror,
            fix="choose another one with " + choice,
        ) from error
