"""What stands in a folder, as everything that takes a folder of images sees it: each folder is looked into once."""

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
    """What stands in a folder, each sorted by name; what is hidden is left out.

    Attributes:
        images: photographs and ``.npy`` files, by their extension: whether they open shows when they are read.
        own: pictures of explanations that masktool made.
        others: files that are no images.
        subfolders: folders, which are not searched.
    """

    images: tuple[Path, ...]
    own: tuple[Path, ...]
    others: tuple[Path, ...]
    subfolders: tuple[Path, ...]


@functools.cache
def image_extensions() -> frozenset[str]:
    """Returns the lower-case extensions of what counts as an image, such as ``.jpg``."""
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
    """Returns the folders in a directory by name, hidden ones left out; raises as :func:`list_directory` does."""
    return [path for path in list_directory(directory) if is_directory(path) and not path.name.startswith(".")]


def list_folder(directory: Path) -> FolderContents:
    """Sorts out what stands in a directory, which is not searched deeper; raises as :func:`list_directory` does."""
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
    """Tells a picture that ``explain`` wrote from a photograph, by the PNG's text entry."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with open_picture(path) as image:
            return PNG_KEY in image.info
    except MasktoolError:  # whatever is wrong with the file is reported when it is read as a photograph
        return False
