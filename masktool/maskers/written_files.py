"""The files that a training writes, checked before hours of work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from masktool.errors import MasktoolError
from masktool.files import check_target
from masktool.messages import differently
from masktool.writable import check_writable


def check_written_files(model: object, data: Path, written: Iterable[tuple[str, Path | None]]) -> None:
    """Checks that the files to write can be written, and are distinct from each other and from those to read.

    Args:
        model: the model that is read; where it is no file's path, no file to write is in its place.
        data: the path of the images.
        written: the files to write, each with the parameter that chose it, as a message names the parameter; None where
            the parameter is not given.

    Raises:
        MasktoolError: a file would take the place of another, or cannot be written.
    """
    named: dict[Path, str] = {data.resolve(): differently(python="data", command="--data")}
    if isinstance(model, str | Path):
        named[Path(model).resolve()] = differently(python="model", command="MODEL")
    for choice, path in written:
        if path is None:
            continue
        other = named.setdefault(path.resolve(), choice)
        if other is not choice:
            raise MasktoolError(
                "one file for two purposes", where=path, got=other + " and " + choice, fix="name another"
            )
        check_writable(path.parent, choice)
        check_target(path)
