"""A journal of the images' records, written as they are measured, so that a stopped run goes on where it was.

The journal is a file of JSON lines: the settings first, then one record per image. It is complete up to its last whole
line, whenever the process ended. Records of other settings, or of an image that has changed since, are never used.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from masktool.contract import conforms
from masktool.files import atomic_path, cannot_write, check_target

Record = Mapping[str, Any]
"""What was measured on one image, JSON values only; None where a figure is undefined."""
LINE = {"image": str, "digest": str, "record": Record}
"""Fields of one line, with their types."""


class Entry(NamedTuple):
    """One image's record, and the digest of the image and its annotations."""

    digest: str
    record: Record


class Journal:
    """The records of one evaluation, in a file or, without a path, in memory; a context manager.

    Attributes:
        path: path of the file; None keeps the records in memory.
        settings: everything besides the images that decides the records, JSON values by name.
        entries: entries by the images' names.
        changed: names of the settings in which an earlier file differs; its records are dropped.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings: Mapping[str, Any] = json.loads(json.dumps(settings))
        self.entries: dict[str, Entry] = {}
        self.changed: tuple[str, ...] = ()
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        """Reads the records of an earlier run, where there are any, and opens the file.

        Raises:
            MasktoolError: the file cannot be read or written.
        """
        if self.path is not None:
            check_target(self.path)
            try:
                self._read(self.path)
                header = json.dumps({"settings": self.settings}, sort_keys=True)
                lines = [header, *(encode_line(name, entry) for name, entry in self.entries.items())]
                with atomic_path(self.path) as temporary:  # drops records of other settings, and half a last line
                    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
                self._stream = self.path.open("a", encoding="utf-8")
            except OSError as error:
                raise cannot_write(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # of a full disk, which the last record's own error tells already
                self._stream.close()

    def find(self, name: str, digest: str) -> Record | None:
        """Returns an image's record; None where the image was not measured, or has changed since."""
        entry = self.entries.get(name)
        return entry.record if entry is not None and entry.digest == digest else None

    def add(self, name: str, digest: str, record: Record) -> Record:
        """Adds one image's record, once written to the file, and returns the record as a later run will read it.

        Raises:
            MasktoolError: the file cannot be written.
        """
        line = encode_line(name, Entry(digest, record))
        if self.path is not None and self._stream is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except OSError as error:
                raise cannot_write(self.path, error) from error
        self.entries[name] = Entry(digest, json.loads(line)["record"])
        return self.entries[name].record

    def _read(self, path: Path) -> None:
        """Takes over the records in a file that has the same settings."""
        if not path.is_file():
            return
        header, *lines = path.read_bytes().split(b"\n")
        found = decode_line(header)
        if found is None or not isinstance(found.get("settings"), dict):
            return
        if found["settings"] != self.settings:
            names = {*found["settings"], *self.settings}
            self.changed = tuple(sorted(n for n in names if found["settings"].get(n) != self.settings.get(n)))
            return
        for line in lines[:-1]:  # what follows the last line end is empty, or half a line
            entry = decode_line(line)
            if entry is not None and all(conforms(entry.get(name), kind) for name, kind in LINE.items()):
                self.entries[entry["image"]] = Entry(entry["digest"], entry["record"])


def encode_line(name: str, entry: Entry) -> str:
    """Returns one entry as a line of JSON; NaN is refused, since JSON has none: undefined figures are None."""
    return json.dumps({"image": name, "digest": entry.digest, "record": entry.record}, allow_nan=False)


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Returns the content of a line; None for a damaged line, whose image is measured again."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
