"""Digests of what a result was made from: of every file that a model names, and of the code that made the result.

Standard library only, so that evaluation, which knows no ONNX, can tell two models apart too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from masktool.external_weights import find_locations
from masktool.files import sha256_of

KEY = b"location"
"""Key of the entry that holds a data file's path: a model without these letters names none, and is not parsed."""

LOCATION = b"\x0a\x08" + KEY
"""Bytes with which an entry of a tensor's external data begins in a protocol buffer: field 1, 8 bytes, the key."""
VALUE = 0x12
"""Byte behind the key: field 2, the file's path as length and bytes."""
LONGEST_PATH = 4096
MOST_DIGESTED = 256 << 20
"""Most bytes of data files beside a factory that are digested whenever an export of it is used: a second at most."""
CODE = Path(__file__).parent


def named_files(path: Path) -> list[Path]:
    """Returns the files that an ONNX model keeps weights in, wherever they stand, sorted.

    Bytes that are no model, or a damaged one, are searched for what looks like an entry of external data: a name too
    many does no harm.
    """
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(KEY) < 0:
            return []
        try:
            names = set(find_locations(content))
        except (IndexError, ValueError):
            names = set(read_locations(content))
    return [path.parent / name for name in sorted(names - {""})]


def read_locations(content: mmap.mmap) -> Iterator[str]:
    """Yields the paths in bytes that look like an entry of external data, as usually written: the key comes first."""
    at = content.find(LOCATION)
    while at >= 0:
        at += len(LOCATION)
        length, start = read_length(content, at)
        if length is not None and 0 < length <= LONGEST_PATH:
            value = bytes(content[start : start + length])
            if b"\0" not in value:
                yield os.fsdecode(value)
        at = content.find(LOCATION, at)


def read_length(content: mmap.mmap, at: int) -> tuple[int | None, int]:
    """Returns the length of the string field at a position, None where none begins there, and its bytes' position."""
    if at >= len(content) or content[at] != VALUE:
        return None, at
    length = 0
    for position, byte in enumerate(content[at + 1 : at + 5]):
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return length, at + 2 + position
    return None, at


def digest_files(paths: Iterable[Path]) -> dict[str, str | None]:
    """Returns the SHA-256 of each file by its path; None for a path that is no ordinary file, or cannot be read."""
    return {str(path): digest_or_none(path) for path in paths}


def digest_or_none(path: Path) -> str | None:
    """Returns the SHA-256 of an ordinary file, None for anything else: a FIFO would never end."""
    try:
        return sha256_of(path) if path.is_file() else None
    except OSError:
        return None


def mark_files(paths: Iterable[Path]) -> dict[str, str | None]:
    """Returns a mark of each file's content by its path, cheap for large files; None as for :func:`digest_files`.

    The mark is the SHA-256 for the first files, up to ``MOST_DIGESTED`` bytes in all; for the others it is the size and
    the time of the last change.
    """
    marks: dict[str, str | None] = {}
    total = 0
    for path in paths:
        n_bytes, changed = size_and_time(path) or (0, 0)
        total += n_bytes
        far = n_bytes > 0 and total > MOST_DIGESTED
        marks[str(path)] = f"{n_bytes} bytes of {changed}" if far else digest_or_none(path)
    return marks


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Returns an ordinary file's size in bytes and time of last change in nanoseconds; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else None


def digest_model(path: Path, besides: Mapping[str, str | None] | None = None) -> str:
    """Returns one SHA-256 for a model's file and every file that belongs to it.

    Args:
        path: path of the model; a model that is one file has that file's own digest.
        besides: digests of more files that decide what the model is, by name, such as the code that builds it.
    """
    named = {os.path.relpath(each, path.parent): digest_or_none(each) for each in named_files(path)}
    own = sha256_of(path)
    return own if not named and not besides else digest_values({"model": own, "data": named, **(besides or {})})


def digest_values(values: Mapping[str, object]) -> str:
    """Returns the SHA-256 of JSON values by name."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@functools.cache
def digest_code(*parts: str) -> str:
    """Returns one SHA-256 for the source files of parts of masktool; without any, for all of them.

    Args:
        parts: rooms and files, or patterns of such: ``ops``, ``contract.py``, ``*.py``.
    """
    places = [place for part in parts for place in sorted(CODE.glob(part))] or [CODE]
    files = [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    return digest_values({str(path.relative_to(CODE)): sha256_of(path) for path in files})
