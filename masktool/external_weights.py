"""Weights that stand in files beside an ONNX model: which files a model may name, and which it does name.

A path that leads out of the model's folder would let a model read any file of its reader's: ONNX Runtime refuses some
of them from 1.31 on and reads them before, so that the paths are looked at here before it sees the file. The names are
found without onnx, which whoever only runs models need not have: of protobuf's format, no more than the way down to a
tensor's external data is read.

Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding; field numbers from onnx.proto.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from masktool.errors import MasktoolError

LOCATION = b"location"
"""Key of the entry that holds a data file's path; a model without these letters names no data file."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types; groups, the others, are in no ONNX file."""
LONGEST_VARINT = 10
DEEPEST = 200
"""Most levels of messages within messages that are read; ONNX Runtime's own reader ends at 100."""
DESCENTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Fields that lead to external data, and the message that each holds, by message."""
KEY, VALUE = 1, 2
"""Numbers of the fields of an entry of external data."""


def find_beside(path: Path, location: str) -> Path:
    """Returns the real path of a data file that a model names.

    A link is followed as far as the folder of the model, or of what the model's own path is a link to (as caches of
    hubs lay them out).

    Args:
        path: path of the model.
        location: path of the data file, as the model names it.

    Raises:
        MasktoolError: the data file is not in the model's folder.
    """
    if not location or is_outside(location):
        raise MasktoolError(
            "external weights that are not in the model's folder",
            where=path,
            expected="a relative path within it",
            got=location or "none",
            fix="put the weights beside the model and name them so in its graph",
        )
    data = path.parent / location
    if not data.is_file():
        raise MasktoolError(
            "missing external data", where=path, expected=location, fix="put that file beside the model"
        )
    folders = {os.path.realpath(path.parent), os.path.realpath(Path(os.path.realpath(path)).parent)}
    real = os.path.realpath(data)
    if not any(os.path.commonpath([folder, real]) == folder for folder in folders):
        raise MasktoolError(
            "external weights that are a link out of the model's folder",
            where=path,
            got=f"{location} -> {real}",
            fix="put the file itself beside the model",
        )
    return Path(real)


def is_outside(location: str) -> bool:
    """Tells whether a path is absolute on any system, or climbs upwards."""
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    return posix.is_absolute() or bool(windows.anchor) or ".." in (*posix.parts, *windows.parts)


def check_named_files(path: Path) -> None:
    """Raises MasktoolError where a model names weights outside its folder.

    Args:
        path: path of an ONNX file; a damaged file in which no path is found passes, and is refused when it is opened.
    """
    for location in list_named_files(path):
        find_beside(path, location)


def list_named_files(path: Path) -> list[str]:
    """Returns the names of the files of weights that a model names, each once; none of an empty file.

    Raises:
        MasktoolError: the file is no ONNX model.
    """
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(LOCATION) < 0:
            return []
        try:
            return list(dict.fromkeys(find_locations(content)))
        except (IndexError, ValueError) as error:
            raise MasktoolError(
                "not an ONNX model, or a damaged one", where=path, got=error, fix="copy or export the file again"
            ) from error


def find_locations(content: mmap.mmap | bytes) -> Iterator[str]:
    """Yields the paths of external data that a model's bytes name.

    Raises:
        ValueError: the bytes are no protobuf message.
        IndexError: the bytes end within a message.
    """
    waiting = [("model", 0, len(content), 0)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if message == "entry":
            entry = {field: content[first:last] for field, first, last in fields(content, start, end)}
            if entry.get(KEY) == LOCATION:
                yield entry.get(VALUE, b"").decode("utf-8")
            continue
        if depth > DEEPEST:
            raise ValueError("messages within messages")
        descents = DESCENTS[message]
        for field, first, last in fields(content, start, end):
            if field in descents:
                waiting.append((descents[field], first, last, depth + 1))


def fields(content: mmap.mmap | bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (number, start, end) of every field of a message that holds bytes, and passes over other fields."""
    while start < end:
        tag, start = read_varint(content, start)
        wire = tag & 7
        if wire == BYTES:
            length, start = read_varint(content, start)
            if start + length > end:
                raise IndexError("a field that ends behind its message")
            yield tag >> 3, start, start + length
            start += length
        elif wire == VARINT:
            _, start = read_varint(content, start)
        elif wire in (FIXED32, FIXED64):
            start += 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
    if start > end:
        raise IndexError("a field that ends behind its message")


def read_varint(content: mmap.mmap | bytes, start: int) -> tuple[int, int]:
    """Returns the number (a protobuf varint) at a position, and the position behind it."""
    number = 0
    for position in range(LONGEST_VARINT):
        byte = content[start + position]
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return number, start + position + 1
    raise ValueError("a number that does not end")
