"""The matching of a file's entries to images by name, however much of the path the entry or the image's name gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from masktool.datasets.dataset import Problem
from masktool.datasets.folders import image_extensions

Value = TypeVar("Value")

N_LISTED = 20
"""Most entries for absent images that are listed one by one; a whole data set's annotations may have thousands."""


def drop_extension(name: str) -> str:
    """Returns a path without the extension of an image; other dots belong to the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in image_extensions() else name


def list_tails(name: str) -> list[str]:
    """Returns a path, and the path without its first folder, without its first two, ...: ``a/b/c``, ``b/c``, ``c``."""
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


class Match(NamedTuple):
    """Images that an entry may be about.

    Attributes:
        rank: looseness of the match: 0 for the very name, more for a looser match.
        names: names of the images.
    """

    rank: int
    names: tuple[str, ...]


class ImageNames:
    """Finds images by what entries call them.

    An entry is about the image

    1. of its very name (the path below the folder);
    2. whose name ends in the entry's (``a.jpg`` is about ``cat/a.jpg``), or whose name the entry's ends in
       (``val/a.jpg`` is about ``a.jpg``);
    3. for which that holds once the extensions of both are dropped.

    The first of these that finds anything counts.

    Args:
        names: names of the images, with ``/`` between folders.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.tables = [self.index(self.names), self.index(self.names, without_extension=True)]

    @staticmethod
    def index(
        names: Iterable[str], without_extension: bool = False
    ) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
        """Returns the images by their whole names, and by every tail of them."""
        whole, tails = defaultdict(list), defaultdict(list)
        for name in names:
            key = drop_extension(name) if without_extension else name
            whole[key].append(name)
            for tail in list_tails(key):
                tails[tail].append(name)
        return whole, tails

    def find(self, entry: str) -> Match | None:
        """Returns the images that an entry may be about; None where there is none."""
        path = entry.replace("\\", "/").removeprefix("./")
        for rank, (key, (whole, tails)) in enumerate(zip((path, drop_extension(path)), self.tables, strict=True)):
            if key in whole:
                return Match(2 * rank, tuple(whole[key]))
            looser = tails.get(key) or next((whole[tail] for tail in list_tails(key) if tail in whole), None)
            if looser:
                return Match(2 * rank + 1, tuple(looser))
        return None


def match_entries(
    entries: Iterable[tuple[str, Value]], names: ImageNames, chosen: Collection[str], source: str, what: str
) -> tuple[dict[str, Value], list[Problem]]:
    """Returns the values of a file's entries by the images that they are about, and the problems.

    Where several entries name one image, the closest match counts; of equally close ones that say different things none
    does.

    Args:
        entries: pairs of what an entry calls the image and what it says of it.
        names: names of all images of the folder.
        chosen: names of the images that are used.
        source: the entries' file, for problems.
        what: word for an entry, such as "label", for problems.

    Returns:
        The value for each image that is used, by its name; problems: entries that belong to no image or to several, and
            images without an entry.
    """
    absent: list[str] = []
    problems: list[Problem] = []
    claims: dict[str, list[tuple[int, str, Value]]] = defaultdict(list)
    for entry, value in entries:
        match = names.find(entry)
        if match is None:
            absent.append(entry)
        elif len(match.names) > 1:
            problems.append(Problem(f"{source}: {entry}", f"may be {' or '.join(match.names)}"))
        else:
            claims[match.names[0]].append((match.rank, entry, value))
    found: dict[str, Value] = {}
    for name, claimed in claims.items():
        closest = min(rank for rank, _, _ in claimed)
        absent += [entry for rank, entry, _ in claimed if rank > closest]
        best = [(entry, value) for rank, entry, value in claimed if rank == closest]
        if all(value == best[0][1] for _, value in best):
            found[name] = best[0][1]
        elif name in chosen:
            called = ", ".join(dict.fromkeys(entry for entry, _ in best))
            problems.append(Problem(f"{source}: {name}", f"{len(best)} entries that differ ({called}); none is used"))
    used = {name: found[name] for name in names.names if name in found and name in chosen}
    missing = [Problem(name, f"no {what} in {source}") for name in names.names if name in chosen and name not in claims]
    return used, [*list_absent(absent, source), *problems, *missing]


def list_absent(entries: list[str], source: str) -> list[Problem]:
    """Returns one problem for each of the first entries without an image, and one for all the rest."""
    problems = [Problem(f"{source}: {entry}", "no such image in the folder") for entry in entries[:N_LISTED]]
    rest = len(entries) - len(problems)
    if rest:
        problems.append(Problem(source, f"{rest} more entries for images that are not in the folder"))
    return problems
