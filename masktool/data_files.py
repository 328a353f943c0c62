"""Opens files of data for every reader alike; one that is missing, no file, too large or endless is a MasktoolError.

A pipe is read where somebody writes to it for sure: standard input (``-``, ``/dev/stdin``) and what a shell hands
over as ``/dev/fd/N``. A named pipe is refused, since opening one that nobody writes to never returns.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from masktool.errors import MasktoolError
from masktool.limits import check_limit, limit
from masktool.printable import cut_text

STANDARD_INPUT = "-"
HANDED_OVER = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
"""URLs such as ``https://...``, also as pathlib writes them, with one slash; a Windows drive has one letter."""
CURL_SCHEMES = ("http", "https", "ftp", "ftps")
"""Schemes of URLs that ``curl`` can download; others, such as ``s3`` and ``hf``, have programs of their own."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it starts with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_directory(path: Path) -> bool:
    """Tells whether a path is a directory; False for one that cannot be looked at: reading it then says why."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Tells whether a path exists; True for one that cannot be looked at: reading it then says why."""
    try:
        return descriptor_of(path) is not None or path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return True


def descriptor_of(path: Path) -> int | None:
    """Returns the open file descriptor that a path such as ``/dev/fd/3`` stands for; None for the path of a file."""
    if str(path) in (STANDARD_INPUT, "/dev/stdin"):
        return 0
    handed_over = HANDED_OVER.fullmatch(str(path))
    return int(handed_over[1]) if handed_over else None


def check_readable(path: Path, expected: str) -> None:
    """Raises MasktoolError unless the path is that of a regular file which is not empty and can be opened.

    For files that are read more than once, or by name, which a pipe cannot be.

    Args:
        path: path of the file, as the user gave it.
        expected: what the file should be, for the error.
    """
    kind = find_kind_of_file(path, expected)
    if kind is not None:
        raise not_a_file(path, expected, kind)
    with open_data(path, expected, bounded=False):
        pass


@contextlib.contextmanager
def open_data(path: Path, expected: str, *, bounded: bool = True) -> Iterator[BinaryIO]:
    """Yields a stream of bytes that can be searched back and forth: the file, or what was read from a pipe.

    Args:
        path: path of the file, ``-`` for standard input, or a path such as ``/dev/fd/3`` that a shell hands over.
        expected: what the file should be, for the error.
        bounded: whether the limit on files of data applies.

    Raises:
        MasktoolError: the file is missing, no file, empty, unreadable or beyond the limit.
    """
    descriptor = descriptor_of(path)
    if descriptor is not None:
        yield read_descriptor(descriptor, path, expected)
        return
    kind = find_kind_of_file(path, expected)
    if kind is not None:
        raise not_a_file(path, expected, kind)
    with open_regular(path, expected) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            raise MasktoolError("empty file", where=path, expected=expected)
        if bounded:
            check_limit("bytes", size, where=path)
        yield stream


def find_kind_of_file(path: Path, expected: str) -> str | None:
    """Returns the kind of file of a path that is no regular file, in words; None for a regular file.

    Raises:
        MasktoolError: there is no such file, or it cannot be looked at.
    """
    try:
        mode = (os.fstat(descriptor) if (descriptor := descriptor_of(path)) is not None else path.stat()).st_mode
    except (OSError, ValueError) as error:
        raise cannot_read(path, error, expected) from error
    return next((name for is_kind, name in KINDS if is_kind(mode)), None)


def open_regular(path: Path, expected: str) -> BinaryIO:
    """Opens a regular file without waiting: one that has become a pipe since the check reads as empty."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise cannot_read(path, error, expected) from error


def read_descriptor(descriptor: int, path: Path, expected: str) -> BinaryIO:
    """Returns a stream of all the bytes that an open file descriptor holds.

    Raises:
        MasktoolError: the descriptor holds nothing, more than the limit, or is neither a file nor a pipe.
    """
    kind = find_kind_of_file(path, expected)
    if kind not in (None, "a pipe", "a socket"):
        got = "a terminal" if kind == "a device" and os.isatty(descriptor) else kind
        raise MasktoolError("not a file", where=path, expected=expected, got=got)
    try:
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read(limit("bytes") + 1)
    except OSError as error:
        raise cannot_read(path, error, expected) from error
    if not content:
        raise MasktoolError("nothing to read", where=path, expected=expected)
    check_limit("bytes", len(content), where=path)
    return io.BytesIO(content)


def not_a_file(path: Path, expected: str, kind: str) -> MasktoolError:
    """Returns the error for a path that is no regular file."""
    fix = "write what it gives to a file first" if kind in ("a pipe", "a socket") else None
    return MasktoolError("not a file", where=path, expected=expected, got=kind, fix=fix)


def cannot_read(path: Path, error: Exception, expected: str) -> MasktoolError:
    """Returns the error for a file that does not open, with advice on what the user may have meant."""
    if url := URL.match(str(path)):
        scheme = url[1].lower()
        by_curl = ", for example with curl -O" if scheme in CURL_SCHEMES else ""
        fix = "give the path alone" if scheme == "file" else f"download it first{by_curl}"
        return MasktoolError(
            "a URL", where=URL.sub(r"\1://", str(path), count=1), expected=f"{expected} on disk", fix=fix
        )
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ELOOP:
        return MasktoolError("a symbolic link that leads back to itself", where=path, expected=expected)
    if code == errno.ENOENT:
        return MasktoolError("a link to a missing file" if path.is_symlink() else "file not found", where=path)
    return MasktoolError("cannot read", where=path, got=getattr(error, "strerror", None) or error)


def read_bytes(path: Path, expected: str, bound: str = "bytes") -> bytes:
    """Returns the bytes of a file.

    Args:
        path: as for :func:`open_data`.
        expected: what the file should be, for the error.
        bound: name of the limit on its length.

    Raises:
        MasktoolError: as for :func:`open_data`.
    """
    with open_data(path, expected) as stream:
        try:
            content = stream.read(limit(bound) + 1)
        except OSError as error:
            raise cannot_read(path, error, expected) from error
    check_limit(bound, len(content), where=path)
    return content


def read_text(path: Path, expected: str, bound: str = "bytes") -> str:
    """Returns the text of a file: UTF-8, or the encoding of its byte order mark.

    Args:
        path: as for :func:`open_data`.
        expected: what the file should be, for the error.
        bound: name of the limit on its length.

    Raises:
        MasktoolError: the file cannot be read, or is no text.
    """
    return decode_text(read_bytes(path, expected, bound), path, expected)


def decode_text(content: bytes, where: object, expected: str) -> str:
    """Returns the text in bytes: UTF-8, or the encoding of their byte order mark.

    Args:
        content: bytes of a file.
        where: path or other source of the bytes, for the error.
        expected: what the file should be, for the error.

    Raises:
        MasktoolError: the bytes are no text.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        place = f"{where}, byte {error.start}"
        raise MasktoolError(f"not {name} text", where=place, expected=expected, fix="save it as UTF-8") from error
    if "\0" in text:
        raise MasktoolError("not text", where=where, expected=expected, got="a character 0", fix="save it as UTF-8")
    return text


def read_json(path: Path, expected: str, bound: str = "bytes") -> Any:
    """Returns the value of the JSON document in a file.

    Args:
        path: as for :func:`open_data`.
        expected: what the file should hold, for the error.
        bound: name of the limit on its length.

    Raises:
        MasktoolError: the file cannot be read, or is no JSON.
    """
    return parse_json(read_text(path, expected, bound), path, expected)


def parse_json(text: str, where: object, expected: str) -> Any:
    """Returns the value of a JSON document.

    Args:
        text: text of the document.
        where: path or other source of the document, for the error.
        expected: what the document should hold, for the error.

    Raises:
        MasktoolError: the text is no JSON, or nested too deeply to be anything that masktool reads.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise MasktoolError("not JSON", where=place, expected=expected, got=error.msg) from error
    except RecursionError as error:
        raise MasktoolError(
            "JSON that cannot be read", where=where, expected=expected, got="too deep a nest"
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise MasktoolError("JSON that cannot be read", where=where, expected=expected, got=error) from error


LONGEST = 60
"""Most characters of a wrong value that an error shows."""


def shorten(value: Any) -> str:
    """Returns a value as JSON, cut where it is long."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deep nest of lists or objects"
    return cut_text(text, LONGEST)
