"""What the cache of exports holds: a list of it, its size limit, and its removal."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from masktool.errors import MasktoolError
from masktool.exporters.cache import (
    RECORD,
    cache_directory,
    digest_of_code,
    find_obstacle,
    make_private_directory,
    package_versions,
    read_record,
    remove,
)
from masktool.files import TEMPORARY_PREFIX
from masktool.identity import digest_model
from masktool.printable import describe_bytes
from masktool.progress import Say

LIMIT_VARIABLE = "MASKTOOL_CACHE_LIMIT"
"""Environment variable that says how many bytes the cache may hold: ``20 GB``, ``500 MB``, a number, or ``none``."""
DEFAULT_LIMIT = 10_000_000_000
"""Bytes that the cache may hold by default: a hundred ResNet-50, more than one works with at a time."""
UNITS: Mapping[str, int] = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]?b)?", re.ASCII)
IN_USE_SECONDS = 60
"""Seconds for which an entry stays after its last use: another process may be about to open its file."""


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """One export that the cache holds.

    Attributes:
        path: the path of the entry's directory.
        source: the model that the export was made from, as it was named; None where the entry does not say.
        n_bytes: the size of all files of the entry, in bytes.
        last_used: the time when the entry was last made or used, in seconds since 1970.
    """

    path: Path
    source: str | None
    n_bytes: int
    last_used: float

    @property
    def name(self) -> str:
        """The entry's name, which :func:`clear_cache` takes."""
        return self.path.name

    @property
    def obstacle(self) -> str | None:
        """Why the entry will not be used again; None where it is valid. Reads the files of the entry and its source."""
        return find_obstacle(self.path) or find_outdated(read_record(self.path / RECORD) or {})

    def describe(self) -> str:
        """Returns the entry's name, size and last use in words."""
        return f"{self.name} ({describe_bytes(self.n_bytes)}, last used {describe_time(self.last_used)})"


def list_cache() -> list[CacheEntry]:
    """Returns what the cache of exports holds, the entry that was used last first.

    Raises:
        MasktoolError: there is no home directory to keep a cache in, or the cache is another user's.
    """
    directory = cache_directory()
    if not directory.is_dir():
        return []
    make_private_directory(directory)
    paths = [path for path in directory.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)]
    entries = [entry for path in paths if (entry := read_entry(path)) is not None]
    return sorted(entries, key=lambda entry: (-entry.last_used, entry.name))


def clear_cache(names: Sequence[str] | None = None) -> list[CacheEntry]:
    """Removes entries from the cache of exports.

    Args:
        names: the names of the entries; None removes all.

    Returns:
        The entries that were removed.

    Raises:
        MasktoolError: there is no entry of a name, and nothing was removed; or the cache is another user's.
    """
    entries = list_cache()
    if names is not None:
        known = {entry.name: entry for entry in entries}
        if unknown := [name for name in names if name not in known]:
            raise MasktoolError(
                "no such entry in the cache",
                where=", ".join(map(repr, unknown)),
                expected=f"some of {', '.join(known)}" if known else "none: it is empty",
            )
        entries = [known[name] for name in dict.fromkeys(names)]
    return [entry for entry in entries if remove_entry(entry)]


def remove_entry(entry: CacheEntry) -> bool:
    """Removes an entry; returns False where another process removed it first, or the system keeps an open file."""
    try:
        remove(entry.path)
    except OSError:
        return False
    return not os.path.lexists(entry.path)


def hold_limit(made: Path, say: Say) -> None:
    """Removes the least recently used entries until the cache is within its limit.

    The entry that was just made stays, and so do entries that were used within the last minute.

    Args:
        made: the entry that was just made.
        say: function that is called with what was removed and why.
    """
    limit = read_limit()
    if limit is None:
        return
    entries = list_cache()
    total = total_bytes(entries)
    for entry in reversed(entries):
        if total <= limit:
            return
        in_use = time.time() - entry.last_used < IN_USE_SECONDS
        if entry.path != made and not in_use and remove_entry(entry):
            total -= entry.n_bytes
            say(f"removed {entry.describe()}: the cache was above its limit of {describe_limit(limit)}")
    if total > limit:
        held = f"the cache holds {describe_bytes(total)}, above its limit of {describe_limit(limit)}"
        say(f"{held}: what was made or used within the last minute stays")


def describe_limit(limit: int) -> str:
    """Returns a limit in words, with the place where it is set."""
    return f"{describe_bytes(limit)} (${LIMIT_VARIABLE})"


def read_limit() -> int | None:
    """Returns how many bytes the cache may hold; None for any number.

    Raises:
        MasktoolError: the environment variable holds no size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip().lower()
    if not text:
        return DEFAULT_LIMIT
    if text == "none":
        return None
    found = SIZE.fullmatch(text)
    if found is None:
        raise MasktoolError("not a size", where=f"${LIMIT_VARIABLE}", expected="such as 20 GB, or none", got=text)
    return round(float(found[1]) * UNITS[found[2] or ""])


def read_entry(path: Path) -> CacheEntry | None:
    """Returns the entry at a path in the cache; None where another process has removed it meanwhile.

    It may also be a file or folder that masktool did not write.
    """
    record = read_record(path / RECORD) or {}
    try:
        files = [path, *(path.iterdir() if path.is_dir() and not path.is_symlink() else ())]
        status = {each: each.lstat() for each in files}
    except FileNotFoundError:
        return None
    n_bytes = sum(status[each].st_size for each in (files[1:] or files))
    used = status.get(path / RECORD, status[path]).st_mtime
    return CacheEntry(path, record.get("source"), n_bytes, used)


def find_outdated(record: Mapping[str, object]) -> str | None:
    """Returns why an intact export would be made anew; None where it is still valid.

    Of the user's files, those are checked whose paths the record holds: the model, and the files that a factory read.
    """
    if record.get("code") != digest_of_code():
        return "made by another masktool"
    identity = record["identity"]
    assert isinstance(identity, dict)  # or the record would count as damaged
    for group in ("packages", "torch"):
        recorded = identity.get(group)
        if not isinstance(recorded, dict):
            continue
        now = package_versions(tuple(recorded))
        if changed := [f"{name} {recorded[name]}, now {now[name]}" for name in now if now[name] != recorded[name]]:
            return ", ".join(changed)
    return find_changed_source(record.get("source"), identity.get("source"))


def find_changed_source(source: object, digest: object) -> str | None:
    """Returns how the model's file has changed since the export; None where it has not, or the model is no file."""
    if not isinstance(source, str) or digest is None:
        return None
    path = Path(source)
    if not path.is_file():
        return f"{path.name} is no longer there"
    return None if digest_model(path) == digest else f"{path.name} has changed"


def describe_time(seconds: float) -> str:
    """Returns a time in seconds since 1970 as local date and time of day."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def total_bytes(entries: Iterable[CacheEntry]) -> int:
    """Returns the size of all entries together, in bytes."""
    return sum(entry.n_bytes for entry in entries)
