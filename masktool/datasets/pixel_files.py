"""Folders that hold a file of pixels for each photograph.

In a mask whatever is not 0 is the object; in a label map to remove parts by, each value, or colour, is a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from masktool.data_files import open_data
from masktool.datasets.dataset import Problem
from masktool.datasets.headers import Header, read_image_header
from masktool.datasets.images import list_images
from masktool.datasets.matching import ImageNames, match_entries
from masktool.errors import MasktoolError
from masktool.runtime.arrays import ARRAY_SUFFIX, check_header
from masktool.runtime.checks import show_shape


def find_pixel_files(
    folder: Path | None, names: ImageNames, headers: Mapping[str, Header | None], what: str
) -> tuple[dict[str, Path], list[Problem]]:
    """Returns the file of pixels that belongs to each photograph, and the problems.

    Args:
        folder: folder with files named like the photographs, whatever their extension; in subfolders or not. None
            where there is none.
        names: names of all photographs.
        headers: headers of the photographs that are used, by name; None for one that does not open.
        what: word for such a file, such as "mask", for problems.

    Returns:
        The files that fit; problems: files of no photograph, photographs without a file, files that are not of the
        photograph's size (the right way up), that do not open or do not keep exact values.

    Raises:
        MasktoolError: the folder cannot be read or holds no images.
    """
    if folder is None:
        return {}, []
    if not folder.is_dir():
        raise MasktoolError("not a folder", where=folder, expected=f"a folder with a {what} for each image")
    files = list_images(folder)
    found, problems = match_entries(files.items(), names, headers, str(folder), what)
    fitting = {}
    for name, path in found.items():
        header = read_image_header(path)
        wrong = explain_unread(path) if header is None else find_fault(header, headers[name])
        if wrong is None:
            fitting[name] = path
        else:
            problems.append(Problem(str(path), f"{wrong}; not used"))
    return fitting, problems


def explain_unread(path: Path) -> str:
    """Returns the reason why a file has no header of an image."""
    if path.suffix.lower() != ARRAY_SUFFIX:
        return "not an image, or a damaged one"
    try:
        with open_data(path, "a .npy file") as stream:
            array = check_header(stream, path)
    except MasktoolError as error:
        return str(error)
    return f"an array {show_shape(array.shape)} {array.dtype}, neither (height, width) nor (height, width, 3) uint8"


def find_fault(header: Header, photograph: Header | None) -> str | None:
    """Returns the reason why a file cannot be used with a photograph; None where it can."""
    if not header.exact:
        return "its format does not keep exact values: save it as PNG"
    if photograph is not None and header.stored != photograph.upright:
        width, height = photograph.upright
        return f"{header.stored[0]} x {header.stored[1]} pixels, the image has {width} x {height}"
    return None
