"""The images of a data set: those of a folder, or of its subfolders, one per class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from masktool.datasets.folders import list_folder
from masktool.errors import MasktoolError


def list_images(folder: Path) -> dict[str, Path]:
    """Returns the images of a folder by name, sorted: its own or, where it has none, those of its subfolders.

    Subfolders are searched one level deep; names there are ``SUBFOLDER/FILE``. Other files are ignored, and so are
    images that ``masktool explain`` made.

    Raises:
        MasktoolError: the folder cannot be read or holds no images.
    """
    contents = list_folder(folder)
    images = {path.name: path for path in contents.images}
    if not images:
        images = {f"{sub.name}/{path.name}": path for sub in contents.subfolders for path in list_folder(sub).images}
    if not images:
        raise MasktoolError("no images", where=folder, expected="files such as .jpg or .png, or subfolders of them")
    return images


def spread_evenly(names: Iterable[str], limit: int | None) -> tuple[str, ...]:
    """Returns at most ``limit`` names, evenly spread over all, since the first ones may all be of one class.

    Args:
        names: names of the images, in order.
        limit: largest number of names, at least 1; None takes all.
    """
    every = tuple(names)
    if limit is None or limit >= len(every):
        return every
    return tuple(every[i * len(every) // limit] for i in range(limit))


def class_folder(name: str) -> str | None:
    """Returns the subfolder in an image's name; None for an image of the folder itself."""
    subfolder, slash, _ = name.rpartition("/")
    return subfolder if slash else None
