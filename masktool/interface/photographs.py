"""The photographs that a user names, and the names of the files that are made from them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from masktool.data_files import STANDARD_INPUT, is_directory
from masktool.errors import MasktoolError
from masktool.progress import Say

STANDARD_INPUT_STEM = "stdin"


def collect_photographs(paths: Iterable[Path], say: Say) -> list[Path]:
    """Returns the files named and, sorted by name, the images of the directories named; each file once.

    Args:
        paths: files, which need not exist, and directories, whose subdirectories are not searched.
        say: function that is called with what was left out.

    Raises:
        MasktoolError: a directory holds no images, or cannot be read.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for each in list_photographs(path, say) if is_directory(path) else [path]:
            found.setdefault(real_path(each), each)  # a link in a circle is its own real path
    return list(found.values())


def list_photographs(directory: Path, say: Say) -> list[Path]:
    """Returns the images of a directory, sorted, without pictures that masktool made; says which files are left out.

    Raises:
        MasktoolError: the directory holds no images, or cannot be read.
    """
    from masktool.datasets.folders import list_folder  # a single photograph is explained without

    contents = list_folder(directory)
    for skipped, reason in ((contents.others, "no image"), (contents.own, "made by masktool explain")):
        if skipped:
            names = ", ".join(path.name for path in skipped[:3]) + (", ..." if len(skipped) > 3 else "")
            say(f"skipped in {directory} ({reason}): {names}")
    if not contents.images:
        raise MasktoolError("no images", where=directory, expected="files such as .jpg or .png")
    return list(contents.images)


def real_path(path: Path) -> str:
    """Returns the path by which a photograph is known, however it was spelled; that of standard input is its own."""
    return STANDARD_INPUT if str(path) == STANDARD_INPUT else os.path.realpath(path)


def choose_stems(photographs: Sequence[Path], kept: Mapping[str, str] | None = None) -> list[str]:
    """Returns one distinct stem per photograph: the file's own, or ``stem-2``, ``stem-3`` ... where several share it.

    The stems are distinct regardless of case and of how accents are encoded, since some file systems tell neither
    apart.

    Args:
        photographs: the photographs, each once.
        kept: stems that an earlier run gave, by the photographs' real paths; these stay theirs. None keeps none.
    """
    kept = kept or {}
    own = [STANDARD_INPUT_STEM if str(path) == STANDARD_INPUT else path.stem for path in photographs]
    seen = {fold_name(stem) for stem in kept.values()}
    taken = seen | {fold_name(stem) for stem in own}
    numbers: dict[str, int] = {}
    stems = []
    for path, first in zip(photographs, own, strict=True):
        stem = kept.get(real_path(path)) if kept else None
        if stem is None:
            stem, folded = first, fold_name(first)
            if folded in seen:
                while fold_name(stem) in taken:
                    numbers[folded] = numbers.get(folded, 1) + 1
                    stem = f"{first}-{numbers[folded]}"
            seen.add(fold_name(stem))
            taken.add(fold_name(stem))
        stems.append(stem)
    return stems


def fold_name(name: str) -> str:
    """Returns a form that names share which a file system may take for one: of any case, accents composed or not."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
