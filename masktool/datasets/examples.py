"""The examples that a masking model is trained on: images, each with the index of its class."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masktool.data_files import shorten
from masktool.datasets.classes import Classes, parse_index
from masktool.datasets.folders import list_folder, list_subfolders
from masktool.datasets.headers import read_image_header
from masktool.datasets.labels import read_label_entries
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.printable import list_some
from masktool.runtime.arrays import ARRAY_SUFFIX

N_LISTED = 3
"""Most faults that an error lists one by one; a data set may have thousands of one kind."""
CHOICE_STREAM = 1
"""Stream of the random numbers for the choice of examples, apart from other draws of the same seed."""
LAYOUT = "a folder with one subfolder of images per class, or a CSV of file,label"


@dataclasses.dataclass(frozen=True)
class Example:
    """One image and its class.

    Attributes:
        name: unique name, with ``/`` between folders: the path below the data's folder, or as the CSV has it.
        path: path of the image.
        label: index of the image's class.
    """

    name: str
    path: Path
    label: int


def read_examples(
    data: Path, *, class_names: Sequence[str] | None, n_classes: int, per_class: int | None = None, seed: int = 0
) -> tuple[Example, ...]:
    """Returns the images to train on with their classes; every image's header is read, no pixel is decoded.

    Args:
        data: a folder whose subfolders are the classes, each searched at any depth; or a file of labels (see
            :mod:`masktool.datasets.labels`) whose images stand relative to its folder. Subfolders and
            labels are indices of classes or their names; where the model's classes have no names and the subfolders are
            no indices, but as many as there are classes, they are the classes in sorted order (torchvision's
            convention).
        class_names: names of the model's classes; None where it has none.
        n_classes: number of the model's classes.
        per_class: number of examples to take of each class; None takes all.
        seed: seed of the choice for ``per_class``, made for each class on its own; a larger choice holds the smaller
            one.

    Returns:
        The examples, sorted by name.

    Raises:
        MasktoolError: the data do not exist or hold no images, a class has none or too few, there is only one class, a
            name is no class, an image stands twice, or an image does not open.
    """
    classes = Classes(class_names, n_classes)
    examples = read_class_folders(data, classes) if data.is_dir() else read_listed(data, classes)
    labels = {example.label for example in examples}
    if len(labels) < 2:
        called = describe_class(labels.pop(), class_names)
        raise MasktoolError("only one class", where=data, expected="images of two or more", got=f"class {called} alone")
    if per_class is not None:
        examples = choose_per_class(examples, per_class, seed, class_names, data)
    check_headers(examples, data)
    return tuple(sorted(examples, key=lambda example: example.name))


def digest(examples: Iterable[Example]) -> str:
    """Returns a SHA-256 over the examples' names, labels and file sizes, by which a resumed run knows its data.

    Raises:
        MasktoolError: a file is gone.
    """
    try:
        known = [[example.name, example.label, example.path.stat().st_size] for example in examples]
    except OSError as error:
        raise MasktoolError("cannot read", where=error.filename, got=error.strerror) from error
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def read_class_folders(data: Path, classes: Classes) -> list[Example]:
    """Reads a folder whose subfolders are the classes.

    Raises:
        MasktoolError: there are no subfolders or no images, or a subfolder holds no image or is no class.
    """
    images_of = {folder.name: list_deep(folder) for folder in list_subfolders(data)}
    if not any(images_of.values()):
        raise MasktoolError("no images in subfolders", where=data, expected=LAYOUT)
    empty = [name for name, images in images_of.items() if not images]
    if empty:
        raise MasktoolError(
            "class folders without images",
            where=data,
            got=list_some(empty, N_LISTED),
            fix="fill them, or take them away",
        )
    index_of = resolve_folders(list(images_of), classes, data)
    return [
        Example(path.relative_to(data).as_posix(), path, index_of[name])
        for name, images in images_of.items()
        for path in images
    ]


def list_deep(folder: Path) -> list[Path]:
    """Returns the photographs of a folder and of all folders below; one that links lead to twice counts once."""
    waiting, seen, images = [folder], set(), []
    while waiting:
        current = waiting.pop()
        real = current.resolve()
        if real not in seen:
            seen.add(real)
            contents = list_folder(current)
            images += [path for path in contents.images if path.suffix.lower() != ARRAY_SUFFIX]
            waiting += contents.subfolders
    return images


def resolve_folders(names: list[str], classes: Classes, data: Path) -> dict[str, int]:
    """Returns the class of each folder.

    Raises:
        MasktoolError: a folder is no class, or folders that name no class are not as many as the classes.
    """
    if not classes.known and all(parse_index(name) is None for name in names):
        if len(names) == classes.count:
            return {name: index for index, name in enumerate(sorted(names))}
        raise MasktoolError(
            "the model's classes have no names",
            where=data,
            expected=f"{classes.count} subfolders, one per class in the order of the classes",
            got=len(names),
            fix="name the classes with " + parameter("labels") + ", or call the subfolders by the index of their class",
        )
    labels = resolve_all(names, classes, data, "subfolders that are no class of the model")
    return dict(zip(names, labels, strict=True))


def resolve_all(labels: Iterable[Any], classes: Classes, data: Path, what: str) -> list[int]:
    """Returns the class of each label.

    Raises:
        MasktoolError: some labels are no class; the first of them are listed with the reason.
    """
    indices, faults = [], []
    for label in labels:
        try:
            indices.append(classes.resolve(label))
        except MasktoolError as error:
            faults.append(f"{shorten(label)} ({error})")
    if faults:
        listed = list_some(list(dict.fromkeys(faults)), N_LISTED)
        raise MasktoolError(what, where=data, got=listed, fix="use the index or the name of a class")
    return indices


def read_listed(data: Path, classes: Classes) -> list[Example]:
    """Reads a file that lists images and their labels.

    Raises:
        MasktoolError: there is no such file, or it lists nothing, an image that does not exist, an image twice, or a
            label that is no class.
    """
    if not data.exists():
        raise MasktoolError("no such data", where=data, expected=LAYOUT)
    entries = [(entry.replace("\\", "/").removeprefix("./"), label) for entry, label in read_label_entries(data)]
    paths = [Path(os.path.normpath(data.parent / entry)) for entry, _ in entries]
    if not entries:
        raise MasktoolError("no images", where=data, expected=LAYOUT)
    absent = [entry for (entry, _), path in zip(entries, paths, strict=True) if not path.is_file()]
    if absent:
        raise MasktoolError(
            "images that are not there",
            where=data,
            got=list_some(absent, N_LISTED),
            fix="write paths relative to the file's folder, or absolute ones",
        )
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise MasktoolError(
            "images listed twice", where=data, got=list_some(twice, N_LISTED), fix="keep one line of each"
        )
    indices = resolve_all((label for _, label in entries), classes, data, "labels that are no class of the model")
    names = (entry for entry, _ in entries)
    return [Example(*fields) for fields in zip(names, paths, indices, strict=True)]


def choose_per_class(
    examples: Iterable[Example], count: int, seed: int, class_names: Sequence[str] | None, data: Path
) -> list[Example]:
    """Returns ``count`` examples of each class, chosen at random.

    Raises:
        MasktoolError: a class has fewer examples.
    """
    members = defaultdict(list)
    for example in sorted(examples, key=lambda example: example.name):
        members[example.label].append(example)
    short = [
        f"{describe_class(label, class_names)} ({len(found)})"
        for label, found in sorted(members.items())
        if len(found) < count
    ]
    if short:
        raise MasktoolError(
            "classes with too few images",
            where=data,
            expected=f"{count} of each",
            got=list_some(short, N_LISTED),
            fix="add images, or lower " + parameter("per_class"),
        )
    return [found[i] for label, found in members.items() for i in draw_choice(len(found), count, seed, label)]


def draw_choice(n: int, count: int, seed: int, label: int) -> list[int]:
    """Returns ``count`` random positions in a class's ``n`` examples; those for a smaller count are among them."""
    order: list[int] = np.random.default_rng((CHOICE_STREAM, seed, label)).permutation(n).tolist()
    return order[:count]


def check_headers(examples: Iterable[Example], data: Path) -> None:
    """Raises MasktoolError where files do not begin as images do."""
    faults = sorted(example.name for example in examples if not opens_as_image(example.path))
    if faults:
        raise MasktoolError(
            "files that do not open as images",
            where=data,
            got=list_some(faults, N_LISTED),
            fix="mend them, or take them away",
        )


def opens_as_image(path: Path) -> bool:
    """Tells whether a file begins as an image file does; a file of an array does not count."""
    return path.suffix.lower() != ARRAY_SUFFIX and read_image_header(path) is not None


def describe_class(label: int, class_names: Sequence[str] | None) -> str:
    """Returns a class's index and, where it has one, its name."""
    return str(label) if class_names is None else f"{label} {class_names[label]!r}"
