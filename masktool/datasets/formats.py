"""Annotated objects from a file or folder of any format; the format is told by the content."""

from __future__ import annotations

from pathlib import Path

from masktool.data_files import decode_text, is_directory, parse_json, read_bytes
from masktool.datasets.boxes import parse_boxes
from masktool.datasets.coco import is_coco, parse_coco
from masktool.datasets.objects import AnnotatedImage
from masktool.datasets.voc import parse_voc, read_voc_folder

EXPECTED = "boxes, as our JSON, COCO JSON or Pascal VOC XML"
NO_CONTENT = b"\xef\xbb\xbf\xff\xfe" + b" \t\r\n"
"""Byte order marks and blanks, which may stand in front of a file's content."""
START_BYTES = 64
"""Bytes at a file's start in which its format is looked for: enough to pass blank lines."""


def read_objects(path: Path) -> list[AnnotatedImage]:
    """Returns the objects in a folder of Pascal VOC XML, one such file, COCO JSON or masktool's own JSON, by image.

    Raises:
        MasktoolError: the file or folder cannot be read or is none of these.
    """
    if is_directory(path):
        return read_voc_folder(path)
    content = read_bytes(path, EXPECTED)
    start = content[:START_BYTES].replace(b"\0", b"").lstrip(NO_CONTENT)  # two or four bytes a character do as well
    if path.suffix.lower() == ".xml" or start.startswith(b"<"):
        return [parse_voc(content, path)]
    document = parse_json(decode_text(content, path, EXPECTED), path, EXPECTED)
    return parse_coco(document, path) if is_coco(document) else parse_boxes(document, path)
