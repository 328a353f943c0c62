"""Boxes from Pascal VOC XML, one file per image, as LabelImg and many other tools write it too.

VOC's coordinates count pixels from 1 and include the last one; in continuous pixels a box is
(xmin − 1, ymin − 1, xmax, ymax). Objects marked ``difficult`` are left out, as the benchmark does; boxes of an object's
parts are not read.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010; development kit, section
"Annotations", http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from masktool.data_files import read_bytes
from masktool.datasets.folders import list_directory
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject, Size
from masktool.errors import MasktoolError
from masktool.extras import require_extra

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

EDGES = ("xmin", "ymin", "xmax", "ymax")
EXPECTED = "Pascal VOC XML"


def read_voc_folder(folder: Path) -> list[AnnotatedImage]:
    """Returns the objects in every ``.xml`` file of a folder, which is not searched deeper, one entry per file.

    Raises:
        MasktoolError: there is no such file, or one of them is no Pascal VOC.
    """
    files = [path for path in list_directory(folder) if path.suffix.lower() == ".xml" and path.is_file()]
    if not files:
        raise MasktoolError("no boxes", where=folder, expected=f"{EXPECTED} files, NAME.xml")
    return [read_voc(path) for path in files]


def read_voc(path: Path) -> AnnotatedImage:
    """Returns the objects in one Pascal VOC file; raises as :func:`parse_voc` does."""
    return parse_voc(read_bytes(path, EXPECTED), path)


def parse_voc(content: bytes, path: Path) -> AnnotatedImage:
    """Returns the objects in the content of one Pascal VOC file.

    Args:
        content: bytes of the file.
        path: path of the file, for errors.

    Raises:
        MasktoolError: the file is no Pascal VOC, or defines entities, which may be made to fill the memory.
    """
    root = parse_xml(content, path)
    if root.tag != "annotation":
        raise MasktoolError(f"not {EXPECTED}", where=path, expected="<annotation>", got=f"<{root.tag}>")
    found = [
        (read_object(element, f"{path}, object {number}"), (element.findtext("difficult") or "").strip() == "1")
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    objects = tuple(each for each, difficult in found if not difficult)
    name = (root.findtext("filename") or "").strip() or path.stem
    return AnnotatedImage(name, objects, read_size(root, path), len(found) - len(objects))


def parse_xml(content: bytes, path: Path) -> Element:
    """Returns the root of an XML document."""
    with require_extra("reading Pascal VOC XML"):
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    try:
        root: Element = fromstring(content)
    except ParseError as error:
        line, column = error.position
        raise MasktoolError("not XML", where=f"{path}, line {line}, column {column}", got=error) from error
    except DefusedXmlException as error:
        raise MasktoolError("XML that defines entities", where=path, expected=f"plain {EXPECTED}") from error
    except (LookupError, ValueError) as error:  # an encoding that is unknown, or not the file's
        raise MasktoolError("XML that cannot be read", where=path, got=error) from error
    return root


def read_object(element: Element, where: str) -> AnnotatedObject:
    """Returns the object of one ``object`` element."""
    box = element.find("bndbox")
    if box is None:
        raise MasktoolError("no <bndbox>", where=where, expected=", ".join(EDGES))
    xmin, ymin, xmax, ymax = (read_number(box, edge, where) for edge in EDGES)
    return AnnotatedObject((xmin - 1, ymin - 1, xmax, ymax), (element.findtext("name") or "").strip() or None)


def read_size(root: Element, path: Path) -> Size | None:
    """Returns the image's (width, height); None where the file has none, or 0 for both, as some tools leave them."""
    size = root.find("size")
    if size is None:
        return None
    width, height = (read_number(size, side, f"{path}, size") for side in ("width", "height"))
    return (width, height) if width or height else None


def read_number(element: Element, tag: str, where: str) -> float:
    """Returns the number in a child element; VOC's own files have whole numbers, other tools' need not."""
    text = (element.findtext(tag) or "").strip()
    try:
        return float(text)
    except ValueError as error:
        got = repr(text) if text else "nothing"
        raise MasktoolError(f"no <{tag}>", where=where, expected="a number of pixels", got=got) from error
