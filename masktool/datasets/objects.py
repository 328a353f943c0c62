"""Annotated objects of images, whatever format they come from, and the choice of those that count for an image."""

from __future__ import annotations

import dataclasses
from typing import Any

from masktool.datasets.classes import Classes
from masktool.datasets.dataset import Box

Size = tuple[float, float]
"""(width, height) in pixels."""


@dataclasses.dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object of an image.

    Attributes:
        box: box as annotated, unchecked, in continuous pixels: pixel i covers [i, i + 1].
        class_name: name of the object's class; None where the format has none, and the class is the image's.
        segmentation: segmentation as COCO writes it, unchecked; None where there is none.
    """

    box: Box
    class_name: str | None = None
    segmentation: Any = None


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """The objects of one image.

    Attributes:
        name: name of the image, as the file has it.
        objects: objects that count; those that a benchmark would ignore are left out.
        size: size of the image when it was annotated; None where the file does not say.
        n_ignored: number of objects that were left out.
    """

    name: str
    objects: tuple[AnnotatedObject, ...]
    size: Size | None = None
    n_ignored: int = 0


def choose_objects(
    image: AnnotatedImage, label: int | None, classes: Classes
) -> tuple[tuple[AnnotatedObject, ...], str | None]:
    """Returns the objects that count for an image's class, and a remark on the choice, None for none.

    1. An image has a label, and the model has a class called like one of its objects: the objects of the label's class
       count, perhaps none.
    2. Otherwise (no label, or annotations in words that are not the model's) all objects count, and where they are of
       several classes, that is remarked.

    Args:
        image: image with its objects.
        label: index of the image's class; None where the class is unknown.
        classes: classes of the model.
    """
    if not image.objects:
        ignored = f"; {image.n_ignored} marked as difficult or crowd" if image.n_ignored else ""
        return (), f"no object{ignored}"
    names = list(dict.fromkeys(each.class_name for each in image.objects if each.class_name is not None))
    indices = {name: classes.find(name) for name in names}
    if label is not None and any(indices.values()):
        chosen = tuple(each for each in image.objects if label in indices.get(each.class_name or "", ()))
        return chosen, None if chosen else f"no object of the image's class {label}, only {', '.join(names)}"
    if len(names) > 1:
        reason = "the image has no label" if label is None else "none is called like a class of the model"
        return image.objects, f"objects of several classes ({', '.join(names)}) all count: {reason}"
    return image.objects, None
