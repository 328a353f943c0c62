"""Exports that are kept, each in a directory with a record of what it was made from, and used until that changes.

An entry is made under a temporary name and appears whole, by one rename, so that two processes may make the same one.
It is for its user alone. An entry that is another user's, that others may write to, that is damaged, or whose source,
code or libraries are not what they were, is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.files import PRIVATE, sha256_of, synchronise, temporary_directory, writing
from masktool.identity import digest_code, digest_files, digest_model, digest_values, mark_files
from masktool.progress import Say

KEY_LENGTH = 16
"""Hexadecimal digits of the key in an entry's name: 64 bits."""
RECORD = "entry.json"
HEADS = "*.head.onnx"
"""Pattern of the head beside an exported file."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = "others may write to it"
CODE_OF_EXPORTS = ("exporters", "ops", "interface", "execution_providers", "*.py")
"""Patterns of masktool's files that may decide what an export holds: all that exporters import, and who calls them."""
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu")
TORCH_PACKAGES = ("torch", "torchvision", "timm", "safetensors")

Files = Mapping[str, str | None]
"""SHA-256 by path; None for a file that is not there."""


@dataclasses.dataclass(frozen=True)
class MadeFrom:
    """What became known of an export's origin only when the export was made.

    Attributes:
        files: the SHA-256, by path, of a factory's code and of the files that Python read for it.
        data: the marks, by path, of the data files beside the factory, see :func:`masktool.identity.mark_files`.
        packages: the versions, by name, of the installed packages that were imported.
    """

    files: Files = dataclasses.field(default_factory=dict)
    data: Files = dataclasses.field(default_factory=dict)
    packages: Files = dataclasses.field(default_factory=dict)


ORIGINS = tuple(field.name for field in dataclasses.fields(MadeFrom))


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """An export that is wanted.

    Attributes:
        stem: the beginning of the entry's name, for people to read.
        identity: all that decides what the export holds and is known before it is made, as JSON values.
        make: the function that writes the export to a path, and returns what became known only then.
        source: the name of the model, for people to read: a file's absolute path, a hub name or the type of a model in
            memory; None where it is not known.
    """

    stem: str
    identity: Mapping[str, object]
    make: Callable[[Path], MadeFrom]
    source: str | None = None

    @property
    def entry(self) -> Path:
        """The directory of the entry."""
        key = digest_values({**self.identity, "code": digest_of_code()})[:KEY_LENGTH]
        return cache_directory() / f"{self.stem}-{key}"

    @property
    def model(self) -> Path:
        """The path of the exported file."""
        return model_in(self.entry)


def model_in(entry: Path) -> Path:
    """Returns the path of the exported file in an entry, named as the entry without its key."""
    return entry / f"{entry.name[: -KEY_LENGTH - 1]}.onnx"


def digest_of_code() -> str:
    """Returns the digest of masktool's code that may decide what an export holds."""
    return digest_code(*CODE_OF_EXPORTS)


def cache_directory() -> Path:
    """Returns the directory of kept exports (XDG base directory specification: a relative path counts as unset).

    Raises:
        MasktoolError: neither ``$XDG_CACHE_HOME`` nor a home directory is known.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "masktool" / "models"
    try:
        return Path.home() / ".cache" / "masktool" / "models"
    except RuntimeError as error:
        raise MasktoolError("no home directory to keep exports in", fix="set XDG_CACHE_HOME") from error


def package_versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """Returns the versions of packages by name, None for one that is not installed."""
    return {name: package_version(name) for name in names}


def package_version(name: str) -> str | None:
    """Returns the version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_kept(request: ExportRequest, say: Say) -> Path | None:
    """Returns the path of a kept export; None where there is none that can be used.

    Why an export that is there cannot be used is said.

    Raises:
        MasktoolError: the cache is another user's.
    """
    if not os.path.lexists(request.entry):
        return None
    make_private_directory(cache_directory())
    reason = find_obstacle(request.entry)
    if reason is None:
        with contextlib.suppress(OSError):  # a cache that cannot be written can be used
            os.utime(request.entry / RECORD)  # the time of its last use
        return request.model
    say(f"the kept export {request.entry} is not used: {reason}")
    return None


def find_obstacle(entry: Path) -> str | None:
    """Says why an entry cannot be used, None where it can; another process may remove the entry meanwhile."""
    try:
        for path in (entry, *sorted(entry.glob("*"))):
            if reason := find_foreign(path, directory=path == entry):
                return f"{reason} ({path.name})"
        return find_damage(entry)
    except FileNotFoundError:
        return "another process removed it"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def find_damage(entry: Path) -> str | None:
    """Says what is wrong with an entry that is the user's alone, None where it holds what it should."""
    record, model = read_record(entry / RECORD), model_in(entry)
    if record is None:
        return "its record is missing or damaged"
    if not model.is_file() or digest_kept(model) != record["model"]:
        return "its bytes are not those that were written"
    if changed := find_changed(MadeFrom(**{name: record[name] for name in ORIGINS})):
        return f"changed since: {', '.join(changed)}"
    return None


def digest_kept(model: Path) -> str:
    """Returns one SHA-256 for an exported file, every file that it names and the head beside it."""
    return digest_model(model, {head.name: sha256_of(head) for head in sorted(model.parent.glob(HEADS))})


def find_changed(made: MadeFrom) -> list[str]:
    """Returns what changed since an export was made: names of files, and packages with their versions."""
    files = {**made.files, **made.data}
    now = {**digest_files(map(Path, made.files)), **mark_files(map(Path, made.data))}
    changed = [Path(name).name for name in files if now[name] != files[name]]
    versions = package_versions(tuple(made.packages))
    packages = [name for name in versions if versions[name] != made.packages[name]]
    return [*changed, *(f"{name} {made.packages[name]}, now {versions[name] or 'missing'}" for name in packages)]


def find_foreign(path: Path, *, directory: bool) -> str | None:
    """Says why a path is not a file or directory of this user's alone; None where it is."""
    status = path.lstat()
    if not (stat.S_ISDIR if directory else stat.S_ISREG)(status.st_mode):
        return "not a directory" if directory else "not an ordinary file"
    if sys.platform == "win32":  # its owners and rights are no modes; a profile is its user's alone
        return None
    if status.st_uid != os.getuid():
        return "another user's"
    return OTHERS if status.st_mode & OTHERS_MAY_WRITE else None


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns an entry's record, None where it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("model"), str)
    return record if whole and all(isinstance(record.get(name), dict) for name in (*ORIGINS, "identity")) else None


def make_kept(request: ExportRequest) -> Path:
    """Makes an export, keeps it in the place of whatever stood there, and returns its path.

    Raises:
        MasktoolError: the export cannot be made or written, or the cache is another user's.
    """
    parent = cache_directory()
    make_private_directory(parent)
    with writing(request.entry), temporary_directory(parent) as directory:
        model = directory / request.model.name
        made = request.make(model)
        record = {
            "source": request.source,
            "model": digest_kept(model),
            **dataclasses.asdict(made),
            "identity": request.identity,
            "code": digest_of_code(),
        }
        (directory / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
        for path in directory.iterdir():
            path.chmod(PRIVATE)
        synchronise(directory / RECORD)
        put_in_place(directory, request)
    return request.model


def make_private_directory(path: Path) -> None:
    """Makes the directory of the cache, and the one that it is in, for the user alone.

    Raises:
        MasktoolError: a directory is another user's, or others may write to it and that cannot be changed.
    """
    for each in (path.parent, path):
        with writing(each):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = find_foreign(each, directory=True)
            if reason in (None, OTHERS) and sys.platform != "win32":
                each.chmod(0o700)
                reason = None
        if reason is not None:
            raise MasktoolError(
                "the cache cannot be trusted", where=each, got=reason, fix="remove it, or set XDG_CACHE_HOME"
            )


def put_in_place(made: Path, request: ExportRequest) -> None:
    """Renames a made entry to its place; what stood there goes, unless it is the same export, made meanwhile."""
    try:
        made.rename(request.entry)
    except OSError:
        if not os.path.lexists(request.entry):
            raise
        if find_obstacle(request.entry) is not None:
            remove(request.entry)
            made.rename(request.entry)
    synchronise(request.entry.parent)


def remove(path: Path) -> None:
    """Removes an entry that cannot be used: a directory, a file or a link."""
    if path.is_dir() and not path.is_symlink():
        with temporary_directory(path.parent) as away:
            path.rename(away / "old")  # at once: nobody finds half of it
            shutil.rmtree(away / "old", ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
