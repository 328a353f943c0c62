"""Finds the files that a factory of the user's is made of, and the versions of the installed packages that it uses.

The files are modules of the project that the factory imports, files that it reads, and data files beside it, which
native code may read unseen.

A factory's place is what stands before the colon in ``--arch``: a file, or a module's name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from masktool.identity import CODE, digest_or_none, size_and_time

INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages, which count by their versions."""
SYSTEM = ("/proc", "/sys", "/dev")
WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".ts", ".jit", ".pkl", ".weights", ".gguf"),
    ".msgpack",
)
ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".dat", ".parquet", ".arrow", ".csv")
SETTINGS = (".json", ".yaml", ".yml", ".toml", ".txt")
DATA = frozenset((*WEIGHTS, *ARRAYS, *SETTINGS))
"""Ends of the names of files that native code may open, of which Python's audit hook is not told."""
MOST_DATA = 1000
"""Most data files beside a factory that are watched: the nearest ones."""
MOST_SEEN = 20_000
"""Most names looked at in search of data files, so that a folder of photographs does not hold up an export."""

_RECORDERS: list[set[str]] = []
"""Sets of paths that the audit hook writes to; no set is in the list unless a factory runs."""
_HOOKED = threading.Event()
_IMPORTED: dict[str, tuple[Path, str | None]] = {}
"""Modules that factories have imported in this process: file, and its digest at that time."""


@contextlib.contextmanager
def record_files(place: str) -> Iterator[Callable[[], list[Path]]]:
    """Yields a function that returns, once the block has ended, the files that its code is made of and reads, sorted.

    These are the modules imported from outside of installed packages, those of the factory's own package wherever it
    stands and of its folder, and whatever Python itself opened for reading. Not seen: files that native code opens by
    itself, and what code learns from the clock, the environment or a network.

    Args:
        place: the place of the factory: a file, or a module's name.
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
        roots = own_roots(place)
        read = (path for path in map(source_of, opened) if counts(path, roots))
        found.extend(sorted({*imported_since(before, place), *read}))


def forget_changed() -> None:
    """Makes Python import the modules of factories anew, where the file of one has changed since its import."""
    if any(digest_or_none(path) != digest for path, digest in _IMPORTED.values()):
        for name in {".".join(parts[: i + 1]) for parts in map(split_name, _IMPORTED) for i in range(len(parts))}:
            sys.modules.pop(name, None)  # packages too: they hold their modules as attributes
        _IMPORTED.clear()
        importlib.invalidate_caches()


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes the path of a file that is opened for reading, as an audit hook of Python."""
    if event == "open" and _RECORDERS:
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & 3 != os.O_RDONLY
        if isinstance(path, str | bytes | os.PathLike) and not writes:
            for recorder in _RECORDERS:
                recorder.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - nothing of pathlib: this may be it


def split_name(module: str) -> list[str]:
    """Returns the parts of a module's name."""
    return module.split(".")


def project_folder(place: str) -> Path:
    """Returns the folder of the project that a factory belongs to, in which its imports are looked for."""
    return Path(place).parent if place.endswith(".py") else Path.cwd()


def own_roots(place: str) -> list[Path]:
    """Returns the paths, without links, of what counts as a factory's own even where it is installed.

    That is the folder of its file, or the folders of the outermost package that it is in. A file that is installed by
    itself counts alone.
    """
    if place.endswith(".py"):
        found = [place]
    else:
        module = sys.modules.get(split_name(place)[0])
        found = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None) or ""]
    paths = [Path(os.path.realpath(each)) for each in found if each]
    return [path.parent if path.is_file() and path.parent.name not in INSTALLED else path for path in paths]


def source_of(path: str, folders: dict[str, str] | None = None) -> Path:
    """Returns a path without links; for a compiled module, the path of its source.

    Args:
        path: the path of the file.
        folders: paths of folders, and the same without links, for who asks for thousands of files: filled here.
    """
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError, NotImplementedError):  # byte code without a cache: itself
            path = importlib.util.source_from_cache(path)
    folder, name = os.path.split(path)
    if folders is None or Path(path).is_symlink() or name in ("", os.curdir, os.pardir):
        return Path(os.path.realpath(path))
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return Path(folders[folder], name)


def counts(path: Path, roots: Iterable[Path] = ()) -> bool:
    """Tells whether a file is the project's: neither of Python, of an installed package, of masktool nor the system.

    Args:
        path: the path of the file, without links.
        roots: folders and files that are the factory's own wherever they stand; packages installed below them are not.
    """
    foreign = foreign_places()
    root = next((root for root in roots if path.is_relative_to(root)), None)
    if root is None:
        within, inner = any(map(path.is_relative_to, foreign)), path
    else:
        within = any(path.is_relative_to(place) and not root.is_relative_to(place) for place in foreign)
        inner = path.relative_to(root)
    return path.is_file() and not within and not is_installed(inner)


@functools.cache
def foreign_places() -> list[Path]:
    """Returns the folders of Python, of the user's installed programs, of the system and of masktool, without links."""
    places = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), site.getuserbase(), *SYSTEM, str(CODE)]
    return [Path(os.path.realpath(place)) for place in places if place]


def is_installed(path: Path) -> bool:
    """Tells whether a path leads through a folder of installed packages."""
    return any(part in INSTALLED for part in path.parts)


def imported_since(before: set[str], place: str) -> list[Path]:
    """Returns the files of the modules that a factory imported or that are its own.

    Of the imported modules those count that are the project's, or that are installed without a version to know them by.

    Args:
        before: the names of the modules that had been imported before the factory was.
        place: the place of the factory: a file, or a module's name.
    """
    own, known = own_roots(place), set(distributions_of_modules())
    within = [*own, project_folder(place).resolve()]
    found: dict[str, Path] = {}
    folders: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        if not isinstance(file := getattr(module, "__file__", None), str):
            continue
        path = source_of(file, folders)
        new = name not in before
        of_project = (new or any(map(path.is_relative_to, within))) and counts(path, own)
        if of_project or (new and is_unversioned(path, known)):
            found[name] = path
    _IMPORTED.update({name: (path, digest_or_none(path)) for name, path in found.items() if name not in before})
    return sorted(set(found.values()))


def is_unversioned(path: Path, known: Container[str]) -> bool:
    """Tells whether a file is installed, but as a part of no distribution: copied there, say.

    Args:
        path: the path of the file, without links.
        known: the names of the outermost modules and packages of all distributions.
    """
    inner = within_installed(path)
    return inner is not None and Path(inner).parts[0].partition(".")[0] not in known and path.is_file()


def within_installed(path: Path) -> str | None:
    """Returns a path relative to the folder of installed packages that it leads through; None without such a folder."""
    last = max((number for number, part in enumerate(path.parts[:-1]) if part in INSTALLED), default=None)
    return None if last is None else str(Path(*path.parts[last + 1 :]))


def outermost_modules() -> list[str]:
    """Returns the names of the outermost modules and packages that are imported and not Python's own."""
    return sorted({split_name(name)[0] for name in list(sys.modules)} - sys.stdlib_module_names)


def imported_packages() -> dict[str, str]:
    """Returns the versions, by name, of the installed distributions of which a module is imported."""
    known = distributions_of_modules()
    names = {name for module in outermost_modules() for name in known.get(module, ())}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def distributions_of_modules() -> Mapping[str, list[str]]:
    """Returns the names of the installed distributions by the outermost modules and packages that they hold.

    Python reads lists of .2 s each time; they are read anew where a folder in which it looks for modules has changed.
    """
    return _read_distributions(tuple((folder, _time_of(folder)) for folder in sys.path))


@functools.lru_cache(maxsize=1)
def _read_distributions(_: tuple[tuple[str, int | None], ...]) -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _time_of(folder: str) -> int | None:
    """Returns the time of a folder's last change in nanoseconds; None where there is none."""
    try:
        return Path(folder).stat().st_ctime_ns
    except (OSError, ValueError):
        return None


def data_beside(place: str) -> list[Path]:
    """Returns the data files in a factory's own folders and below, the nearest first, ``MOST_DATA`` at most.

    Hidden folders, installed packages and empty files, such as what a shell has just opened for output, are left out.
    """
    folders = [root for root in own_roots(place) if root.is_dir()]
    names = itertools.islice(walk(folders), MOST_SEEN)
    data = (path for path in names if path.suffix.lower() in DATA and (size_and_time(path) or (0,))[0] > 0)
    return list(itertools.islice(data, MOST_DATA))


def walk(folders: list[Path]) -> Iterator[Path]:
    """Yields the paths in folders and below, level by level, in order; links to folders are not followed."""
    while folders:
        deeper: list[Path] = []
        for folder in folders:
            with contextlib.suppress(OSError):  # may not be read: the factory cannot either
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "__")):
                        deeper.append(Path(entry.path))
        folders = [folder for folder in deeper if folder.name not in INSTALLED]
