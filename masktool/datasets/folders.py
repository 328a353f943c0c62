"""The contents of a folder of images, the same for all of masktool's functions: each folder is read once."""

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
    """The files and folders in a folder, each kind sorted by name; hidden ones are left out.

    Attributes:
        images: photographs and ``.npy`` files, by their extension; whether they open is not checked.
        own: images of explanations that masktool made.
        others: files that are no images.
        subfolders: folders, which are not searched.
    """

    images: tuple[Path, ...]
    own: tuple[Path, ...]
    others: tuple[Path, ...]
    subfolders: tuple[Path, ...]


@functools.cache
def image_extensions() -> frozenset[str]:
    """Returns the lower-case extensions of files that count as images, such as ``.jpg``."""
    return picture_extensions() | {ARRAY_SUFFIX}


def list_directory(directory: Path) -> list[Path]:
    """Returns all files and folders in a directory, sorted.

    Raises:
        MasktoolError: the directory cannot be read.
    """
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise MasktoolError("cannot read the directory", where=directory, got=error.strerror) from error


def list_subfolders(directory: Path) -> list[Path]:
    """Returns the folders in a directory, sorted, hidden ones left out; raises as :func:`list_directory` does."""
    return [path for path in list_directory(directory) if is_directory(path) and not path.name.startswith(".")]


def list_folder(directory: Path) -> FolderContents:
    """Returns a directory's contents, which are not searched deeper; raises as :func:`list_directory` does."""
    extensions = image_extensions()
    entries = [path for path in list_directory(directory) if not path.name.startswith(".")]
    subfolders = {path for path in entries if is_directory(path)}
    files = [path for path in entries if path not in subfolders]
    candidates = [path for path in files if path.suffix.lower() in extensions]
    own = {path for path in candidates if is_own_picture(path)}
    return FolderContents(
        images=tuple(path for path in candidates if path not in own),
        own=tuple(path for path in candidates if path in own),
        others=tuple(path for path in files if path.suffix.lower() not in extensions),
        subfolders=tuple(path for path in entries if path in subfolders),
    )


def is_own_picture(path: Path) -> bool:
    """Tells whether an image is one that ``explain`` wrote and no photograph, by the PNG's text entry."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with open_picture(path) as image:
            return PNG_KEY in image.info
    except MasktoolError:  # whatever is wrong with the file is reported when it is read as a photograph
        return False
