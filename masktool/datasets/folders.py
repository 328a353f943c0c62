"""The images in a folder, as every command that takes a folder sees them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from masktool.data_files import is_directory
from masktool.errors import MasktoolError
from masktool.runtime.arrays import ARRAY_SUFFIX
from masktool.runtime.pictures import PNG_KEY, open_picture, picture_extensions


@dataclasses.dataclass(frozen=True)
class FolderContents:
    """What stands in a folder, each sorted by name; hidden files and subfolders are left out.

    Attributes:
        images: photographs and ``.npy`` files, by their extension: whether they open shows when they are read.
        own: pictures that ``masktool explain`` made.
        others: no images.
    """

    images: tuple[Path, ...]
    own: tuple[Path, ...]
    others: tuple[Path, ...]


@functools.cache
def image_extensions() -> frozenset[str]:
    """Returns the lower-case extensions of what counts as an image, such as ``.jpg``."""
    return picture_extensions() | {ARRAY_SUFFIX}


def list_folder(directory: Path) -> FolderContents:
    """Sorts out the files of a directory, which is not searched deeper.

    Raises:
        MasktoolError: the directory cannot be read.
    """
    extensions = image_extensions()
    try:
        files = sorted(path for path in directory.iterdir() if not (path.name.startswith(".") or is_directory(path)))
    except OSError as error:
        raise MasktoolError("cannot read the directory", where=directory, got=error.strerror) from error
    candidates = [path for path in files if path.suffix.lower() in extensions]
    own = {path for path in candidates if is_own_picture(path)}
    return FolderContents(
        images=tuple(path for path in candidates if path not in own),
        own=tuple(path for path in candidates if path in own),
        others=tuple(path for path in files if path.suffix.lower() not in extensions),
    )


def is_own_picture(path: Path) -> bool:
    """Tells a picture that ``explain`` wrote from a photograph, by the PNG's text entry."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with open_picture(path) as image:
            return PNG_KEY in image.info
    except MasktoolError:  # whatever is wrong with the file is reported when it is read as a photograph
        return False
