"""Boxes from masktool's own JSON: ``{file: {"boxes": [[x0, y0, x1, y1], ...], "size": [width, height]}}``.

Boxes are those of the objects of the image's class, in continuous pixels of the photograph the right way up: pixel i
covers [i, i + 1]. ``size``, the photograph's when it was annotated, may be left out; where it is given it is checked.
``{file: [[x0, y0, x1, y1], ...]}`` does as well; other keys are ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masktool.data_files import shorten
from masktool.datasets.fields import read_field, read_numbers
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject
from masktool.errors import MasktoolError

BOX = "[x0, y0, x1, y1]"


def parse_boxes(document: Any, path: Path) -> list[AnnotatedImage]:
    """Returns the boxes in a JSON document.

    Args:
        document: the file's content.
        path: path of the file, for errors.

    Raises:
        MasktoolError: the document is of another form; the error names the entry.
    """
    if not isinstance(document, dict):
        raise MasktoolError("not boxes", where=path, expected=f'{{file: {{"boxes": [{BOX}, ...]}}}}', got="a JSON list")
    return [parse_entry(name, entry, f"{path}, entry {json.dumps(name)}") for name, entry in document.items()]


def parse_entry(name: str, entry: Any, where: str) -> AnnotatedImage:
    """Returns the boxes of one image."""
    size = None
    if isinstance(entry, dict):
        boxes = read_field(entry, "boxes", list, where, f"a list of {BOX}")
        if entry.get("size") is not None:
            width, height = read_numbers(entry["size"], 2, where, '"size" as [width, height]')
            size = (width, height)
    elif isinstance(entry, list):
        boxes = entry
    else:
        raise MasktoolError("not boxes", where=where, expected=f"a list of {BOX}", got=shorten(entry))
    objects = []
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = read_numbers(box, 4, f"{where}, box {number}", BOX)
        objects.append(AnnotatedObject((x0, y0, x1, y1)))
    return AnnotatedImage(name, tuple(objects), size)
