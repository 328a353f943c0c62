"""Which photographs a command line means, and what the files made from them are called."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from masktool.errors import MasktoolError
from masktool.explainers.explanation import PNG_KEY
from masktool.runtime.arrays import ARRAY_SUFFIX

Say = Callable[[str], None]


def collect_photographs(paths: Iterable[Path], say: Say) -> list[Path]:
    """Returns the files named and, sorted by name, the images of the directories named; each file once.

    Args:
        paths: files, which need not exist, and directories, which are not searched deeper.
        say: tells what was left out.

    Raises:
        MasktoolError: a directory without images.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for each in list_images(path, say) if path.is_dir() else [path]:
            found.setdefault(each.resolve(), each)
    return list(found.values())


def list_images(directory: Path, say: Say) -> list[Path]:
    """Returns the images of a directory, sorted; says which files are none, and leaves out our own pictures.

    Raises:
        MasktoolError: there is none, or the directory cannot be read.
    """
    extensions = {*Image.registered_extensions(), ARRAY_SUFFIX}
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise MasktoolError("cannot read the directory", where=directory, got=error.strerror) from error
    images = [path for path in files if path.suffix.lower() in extensions]
    own = [path for path in images if is_own_picture(path)]
    for skipped, reason in (
        ([path for path in files if path not in set(images)], "no image"),
        (own, "made by masktool explain"),
    ):
        if skipped:
            names = ", ".join(path.name for path in skipped[:3]) + (", ..." if len(skipped) > 3 else "")
            say(f"skipped in {directory} ({reason}): {names}")
    kept = [path for path in images if path not in set(own)]
    if not kept:
        raise MasktoolError("no images", where=directory, expected="files such as .jpg or .png")
    return kept


def is_own_picture(path: Path) -> bool:
    """Tells a picture that ``explain`` wrote from a photograph, by the PNG's text entry."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as image:
            return PNG_KEY in image.info
    except Exception:  # whatever is wrong with the file is reported when it is read as a photograph
        return False


def choose_stems(photographs: Sequence[Path]) -> list[str]:
    """Returns one distinct stem per photograph: the file's own, or ``stem-2``, ``stem-3`` ... where several share it.

    Distinct regardless of case, since some file systems do not tell cases apart.
    """
    counts = Counter(path.stem.casefold() for path in photographs)
    taken = set(counts)
    seen: set[str] = set()
    stems = []
    for path in photographs:
        stem, number = path.stem, 1
        while (stem.casefold() in taken) if number > 1 else (stem.casefold() in seen):
            number += 1
            stem = f"{path.stem}-{number}"
        seen.add(stem.casefold())
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def check_writable(directory: Path) -> None:
    """Raises a MasktoolError unless files can be written into a directory, which need not exist yet."""
    try:
        existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise NotADirectoryError(None, "Not a directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(None, "Permission denied")
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise MasktoolError(
            "cannot write into the output directory",
            where=directory,
            got=error.strerror,
            fix="choose another one with -o",
        ) from error
