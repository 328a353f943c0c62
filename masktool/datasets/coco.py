"""Objects from COCO JSON: boxes, and segmentations (polygons or run lengths) as exact masks.

A box is [x, y, width, height] in continuous pixels. Annotations with ``iscrowd``, regions of many objects, are left
out, as the benchmark does not count them as objects. ``categories`` may be missing; objects then have no class.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014; https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masktool.data_files import shorten
from masktool.datasets.fields import read_field, read_numbers
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject, Size
from masktool.errors import MasktoolError

BOX = "[x, y, width, height]"
IDENTIFIER = (int, str)


def is_coco(document: Any) -> bool:
    """Tells whether a JSON document is COCO, by its lists, and not masktool's own format, whose keys are files."""
    names = ("images", "annotations", "categories")
    return isinstance(document, dict) and any(isinstance(document.get(name), list) for name in names)


def parse_coco(document: Any, path: Path) -> list[AnnotatedImage]:
    """Returns the objects in a COCO document, by image.

    Args:
        document: the file's content.
        path: path of the file, for errors.

    Raises:
        MasktoolError: a key is missing or holds something else; the error names the place.
    """
    images = read_field(document, "images", list, str(path), "a list")
    annotations = read_field(document, "annotations", list, str(path), "a list")
    categories = parse_categories(document, path)
    found: dict[Any, list[AnnotatedObject]] = defaultdict(list)
    ignored: dict[Any, int] = defaultdict(int)
    for number, annotation in enumerate(annotations):
        where = f"{path}, annotation {number}"
        image_id = read_field(annotation, "image_id", IDENTIFIER, where, "the id of an image")
        if annotation.get("iscrowd"):
            ignored[image_id] += 1
        else:
            found[image_id].append(parse_annotation(annotation, categories, where))
    parsed = []
    for number, image in enumerate(images):
        where = f"{path}, image {number}"
        image_id = read_field(image, "id", IDENTIFIER, where, "a number")
        name = read_field(image, "file_name", str, where, "a file")
        size = parse_size(image, where)
        parsed.append(AnnotatedImage(name, tuple(found.pop(image_id, ())), size, ignored[image_id]))
    orphans = [
        AnnotatedImage(f"image_id {json.dumps(image_id)}", tuple(objects)) for image_id, objects in found.items()
    ]
    return parsed + orphans


def parse_categories(document: Any, path: Path) -> Mapping[Any, str] | None:
    """Returns the categories' names by id; None where the document has none."""
    if "categories" not in document:
        return None
    names = {}
    for number, category in enumerate(read_field(document, "categories", list, str(path), "a list")):
        where = f"{path}, category {number}"
        category_id = read_field(category, "id", IDENTIFIER, where, "a number")
        names[category_id] = read_field(category, "name", str, where, "a text")
    return names


def parse_annotation(annotation: Any, categories: Mapping[Any, str] | None, where: str) -> AnnotatedObject:
    """Returns one object."""
    x, y, width, height = read_numbers(read_field(annotation, "bbox", list, where, BOX), 4, where, f"bbox {BOX}")
    name = None
    if categories is not None:
        category = read_field(annotation, "category_id", IDENTIFIER, where, "the id of a category")
        if category not in categories:
            raise MasktoolError("no such category", where=where, got=shorten(category))
        name = categories[category]
    return AnnotatedObject((x, y, x + width, y + height), name, annotation.get("segmentation") or None)


def parse_size(image: Any, where: str) -> Size | None:
    """Returns the image's (width, height); None where they are missing or 0."""
    if not image.get("width") or not image.get("height"):
        return None
    width, height = read_numbers([image["width"], image["height"]], 2, where, "width and height")
    return width, height
