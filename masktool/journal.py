"""A journal of the images' records, written as they are made, so that a stopped run goes on where it was.

The journal is a file of JSON lines: the settings first, then one record per image. It is complete up to its last whole
line, whenever the process ended. Records of other settings, or of an image that has changed since, are never used. In
memory are only the places of the records in the file, so that their number and size do not matter.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from masktool.contract import conforms
from masktool.errors import MasktoolError
from masktool.files import atomic_path, cannot_write, check_target

Record = Mapping[str, Any]
"""What was made of one image, JSON values only; None where a figure is undefined."""
LINE = {"image": str, "digest": str, "record": Record}
"""Fields of one line, with their types."""


class Entry(NamedTuple):
    """One image's record in the file.

    Attributes:
        digest: digest of the image, and of all else that is known of it.
        start: position of the record's line in the file.
        length: length of the line in bytes.
    """

    digest: str
    start: int
    length: int


class Journal:
    """The records of one run, in a file or, without a path, in memory; a context manager.

    Attributes:
        path: path of the file; None keeps the records in memory.
        settings: everything besides the images that decides the records, JSON values by name.
        entries: places of the records by the images' names, in the order in which they were added.
        changed: names of the settings in which an earlier file differs; its records are dropped.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings: Mapping[str, Any] = json.loads(json.dumps(settings))
        self.entries: dict[str, Entry] = {}
        self.changed: tuple[str, ...] = ()
        self._stream: BinaryIO = io.BytesIO()

    def __enter__(self) -> Self:
        """Takes over the records of an earlier run, where there are any, and opens the file.

        A second run in the same place opens another file, which takes this one's name; neither writes into the other's.

        Raises:
            MasktoolError: the file cannot be read or written.
        """
        if self.path is not None:
            check_target(self.path)
            try:
                with atomic_path(self.path) as temporary:
                    self._stream = temporary.open("w+b")
                    self._copy(self.path)  # drops records of other settings, and half a last line
                    self._stream.flush()
                    if sys.platform == "win32":  # where no open file is renamed
                        self._stream.close()
                if self._stream.closed:
                    self._stream = self.path.open("r+b")
                    self._stream.seek(0, io.SEEK_END)
            except (MasktoolError, OSError) as error:
                with contextlib.suppress(OSError):  # a full disk refuses what is left in the buffer once more
                    self._stream.close()
                if isinstance(error, MasktoolError):
                    raise
                raise cannot_write(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            with contextlib.suppress(OSError):  # of a full disk, which the last record's own error tells already
                self._stream.close()

    def find(self, name: str, digest: str) -> Record | None:
        """Returns an image's record; None where there is none, or the image has changed since."""
        entry = self.entries.get(name)
        return self.read(name) if entry is not None and entry.digest == digest else None

    def read(self, name: str) -> Record:
        """Returns the record of an image that is among the entries."""
        entry = self.entries[name]
        self._stream.seek(entry.start)
        record: Record = json.loads(self._stream.read(entry.length))["record"]
        self._stream.seek(0, io.SEEK_END)
        return record

    def add(self, name: str, digest: str, record: Record) -> Record:
        """Adds one image's record, once written to the file, and returns the record as a later run will read it.

        Raises:
            MasktoolError: the file cannot be written.
        """
        line = encode_line({"image": name, "digest": digest, "record": record})
        entry = Entry(digest, self._stream.tell(), len(line))
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise cannot_write(self.path or Path(), error) from error
        self._enter(name, entry)
        return self.read(name)

    def _enter(self, name: str, entry: Entry) -> None:
        """Notes the place of a record, the last one of its image."""
        self.entries.pop(name, None)
        self.entries[name] = entry

    def _copy(self, path: Path) -> None:
        """Writes the settings, and behind them the records of an earlier file that has the same ones."""
        self._stream.write(encode_line({"settings": self.settings}))
        if not path.is_file():
            return
        with path.open("rb") as earlier:
            found = decode_line(next(earlier, b""))
            if found is None or not isinstance(found.get("settings"), dict):
                return
            if found["settings"] != self.settings:
                names = {*found["settings"], *self.settings}
                self.changed = tuple(sorted(n for n in names if found["settings"].get(n) != self.settings.get(n)))
                return
            for line, fields in whole_lines(earlier):
                self._enter(fields["image"], Entry(fields["digest"], self._stream.tell(), len(line)))
                self._stream.write(line)


def whole_lines(stream: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields the lines that hold a record, with their fields; a damaged line's image is done again."""
    for line in stream:
        fields = decode_line(line)
        if fields is not None and all(conforms(fields.get(name), kind) for name, kind in LINE.items()):
            yield line, fields


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Returns a line of JSON; NaN is refused, since JSON has none: undefined figures are None."""
    return json.dumps(fields, allow_nan=False, sort_keys="settings" in fields).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Returns the content of a whole line; None for one that is damaged, or that does not end."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
