"""Records of images as they are measured, so that a run that was stopped goes on where it was.

A file of JSON lines: the settings first, then one record per image. It is complete up to its last whole line, whenever
the process ended. Records of other settings are never used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from masktool.errors import MasktoolError
from masktool.files import atomic_path

Record = Mapping[str, Any]
"""What was measured on one image, JSON values only; None where a figure is undefined."""


class Journal:
    """The records of one evaluation, in a file or, without a path, in memory; a context manager."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._header = json.dumps({"settings": settings}, sort_keys=True)
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        """Reads what is there.

        Raises:
            MasktoolError: the file cannot be read or written.
        """
        if self.path is not None:
            try:
                self.records = read_records(self.path, self._header)
                with atomic_path(self.path) as temporary:  # drops records of other settings, and half a last line
                    lines = [self._header, *(encode(name, record) for name, record in self.records.items())]
                    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
                self._stream = self.path.open("a", encoding="utf-8")
            except OSError as error:
                raise MasktoolError("cannot write", where=self.path, got=error.strerror) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, name: str, record: Record) -> None:
        """Adds one image's record, and does not return before the file holds it."""
        self.records[name] = json.loads(json.dumps(record))  # as a later run would read it
        if self._stream is not None:
            self._stream.write(encode(name, record) + "\n")
            self._stream.flush()


def encode(name: str, record: Record) -> str:
    """Returns one line; NaN is refused, since JSON has none: undefined figures are None."""
    return json.dumps({"image": name, "record": record}, allow_nan=False)


def read_records(path: Path, header: str) -> dict[str, Record]:
    """Returns the records of a file whose first line is the header; none of any other file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0] != header:
        return {}
    found = {}
    for line in lines[1:-1]:  # what follows the last line end is empty, or half a line
        entry = json.loads(line)
        found[entry["image"]] = entry["record"]
    return found
