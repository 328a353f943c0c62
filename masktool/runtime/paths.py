"""What every reader checks first, so that the errors read alike."""

from __future__ import annotations

from pathlib import Path

from masktool.errors import MasktoolError


def check_readable(path: Path, expected: str) -> None:
    """Raises MasktoolError unless the path is a file with something in it.

    Args:
        path: as the user gave it.
        expected: what the file should be, for the error.
    """
    try:
        if path.is_dir():
            raise MasktoolError("not a file", where=path, expected=expected, got="a directory")
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError as error:
        raise MasktoolError("file not found", where=path) from error
    except OSError as error:
        raise MasktoolError("cannot read", where=path, got=error.strerror) from error
    if empty:
        raise MasktoolError("empty file", where=path, expected=expected)
