"""The photographs that a user names, and the names of the files that are made from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
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
            found.setdefault(os.path.realpath(each), each)  # a link in a circle is its own real path
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


def choose_stems(photographs: Sequence[Path]) -> list[str]:
    """Returns one distinct stem per photograph: the file's own, or ``stem-2``, ``stem-3`` ... where several share it.

    The stems are distinct regardless of case, since some file systems do not tell cases apart.
    """
    own = [STANDARD_INPUT_STEM if str(path) == STANDARD_INPUT else path.stem for path in photographs]
    counts = Counter(stem.casefold() for stem in own)
    taken = set(counts)
    seen: set[str] = set()
    stems = []
    for first in own:
        stem, number = first, 1
        while (stem.casefold() in taken) if number > 1 else (stem.casefold() in seen):
            number += 1
            stem = f"{first}-{number}"
        seen.add(stem.casefold())
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
