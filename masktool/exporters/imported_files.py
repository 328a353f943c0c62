"""Which files a factory of the user's is made of: modules of the project that it imports, and files that it reads."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from masktool.identity import CODE, digest_or_none

INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages, which count by their versions."""
SYSTEM = ("/proc", "/sys", "/dev")

_RECORDERS: list[set[str]] = []
"""Where the audit hook writes; empty but for the time that a factory runs."""
_HOOKED = threading.Event()
_IMPORTED: dict[str, tuple[Path, str | None]] = {}
"""Modules that factories have imported in this process: file, and its digest at that time."""


@contextlib.contextmanager
def record_files(folder: Path) -> Iterator[Callable[[], list[Path]]]:
    """Yields a function that returns the files which the block's code is made of and reads, sorted, once it has ended.

    These are the modules imported from outside of installed packages, those that had been imported from the folder
    before, and whatever Python itself opened for reading. Not seen: files that native code opens by itself, and what
    code learns from the clock, the environment or a network.

    Args:
        folder: of the project.
    """
    if not _HOOKED.is_set():
        _HOOKED.set()
        sys.addaudithook(note_opened)  # for the process's life: Python cannot take one away
    forget_changed()
    opened: set[str] = set()
    before = set(sys.modules)
    found: list[Path] = []
    writes, sys.dont_write_bytecode = (
        sys.dont_write_bytecode,
        True,
    )  # tells a change within one second by its size alone
    _RECORDERS.append(opened)
    try:
        yield lambda: found
    finally:
        _RECORDERS.remove(opened)
        sys.dont_write_bytecode = writes
        found.extend(sorted({*imported_since(before, folder), *filter(counts, map(source_of, opened))}))


def forget_changed() -> None:
    """Makes Python import anew what factories have imported, where one of those files has changed since."""
    if any(digest_or_none(path) != digest for path, digest in _IMPORTED.values()):
        for name in {".".join(parts[: i + 1]) for parts in map(split_name, _IMPORTED) for i in range(len(parts))}:
            sys.modules.pop(name, None)  # packages too: they hold their modules as attributes
        _IMPORTED.clear()
        importlib.invalidate_caches()


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes the path of a file that is opened for reading; the audit hook."""
    if event == "open" and _RECORDERS:
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & 3 != os.O_RDONLY
        if isinstance(path, str | bytes | os.PathLike) and not writes:
            for recorder in _RECORDERS:
                recorder.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - nothing of pathlib: this may be it


def split_name(module: str) -> list[str]:
    """Returns the parts of a module's name."""
    return module.split(".")


def module_files(before: set[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Yields name and file of the modules that were imported since, and of all that stand in the folder."""
    root = folder.resolve()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and (name not in before or Path(file).resolve().is_relative_to(root)):
            yield name, file


def source_of(path: str) -> Path:
    """Returns a path without links; a compiled module is its source."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError, NotImplementedError):  # byte code without a cache: itself
            path = importlib.util.source_from_cache(path)
    return Path(os.path.realpath(path))


def counts(path: Path) -> bool:
    """Tells whether a file is the project's: neither of Python, of an installed package, of masktool nor the system."""
    places = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), site.getuserbase(), *SYSTEM, str(CODE)]
    within = any(path.is_relative_to(os.path.realpath(place)) for place in places if place)
    return path.is_file() and not within and not any(part in INSTALLED for part in path.parts)


def imported_since(before: set[str], folder: Path) -> list[Path]:
    """Returns the project's files among the modules that were imported since, and all those in the folder.

    Args:
        before: names of the modules that had been imported.
        folder: of the project.
    """
    modules = {name: source_of(file) for name, file in module_files(before, folder)}
    own = {name: path for name, path in modules.items() if counts(path)}
    _IMPORTED.update({name: (path, digest_or_none(path)) for name, path in own.items() if name not in before})
    return sorted(set(own.values()))
