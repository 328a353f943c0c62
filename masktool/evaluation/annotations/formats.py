"""Objects from a file or folder of any format, told by its content."""

from __future__ import annotations

from pathlib import Path

from masktool.evaluation.annotations.boxes import parse_boxes
from masktool.evaluation.annotations.coco import is_coco, parse_coco
from masktool.evaluation.annotations.files import read_json
from masktool.evaluation.annotations.objects import AnnotatedImage
from masktool.evaluation.annotations.voc import read_voc, read_voc_folder
from masktool.runtime.paths import check_readable

EXPECTED = "boxes, as our JSON, COCO JSON or Pascal VOC XML"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_BYTES = 64
"""Enough to look past blank lines."""


def read_objects(path: Path) -> list[AnnotatedImage]:
    """Reads a folder of Pascal VOC XML, one such file, COCO JSON or our own JSON.

    Raises:
        MasktoolError: it cannot be read or is none of these.
    """
    if path.is_dir():
        return read_voc_folder(path)
    check_readable(path, EXPECTED)
    with path.open("rb") as stream:
        start = stream.read(START_BYTES).removeprefix(BYTE_ORDER_MARK).lstrip()
    if path.suffix.lower() == ".xml" or start.startswith(b"<"):
        return [read_voc(path)]
    document = read_json(path, EXPECTED)
    return parse_coco(document, path) if is_coco(document) else parse_boxes(document, path)
