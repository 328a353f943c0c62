"""Reading of a data set from a folder of images and the files of their annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from masktool.datasets.classes import Classes
from masktool.datasets.dataset import Box, Dataset, DatasetImage, Problem
from masktool.datasets.fitting import fit_box
from masktool.datasets.formats import read_objects
from masktool.datasets.headers import Header, read_image_header
from masktool.datasets.images import class_folder, list_images, spread_evenly
from masktool.datasets.labels import read_label_entries
from masktool.datasets.matching import ImageNames, match_entries
from masktool.datasets.objects import AnnotatedImage, AnnotatedObject, choose_objects
from masktool.datasets.pixel_files import find_pixel_files
from masktool.datasets.run_lengths import RunLengthMask, merge_segmentations, require_pycocotools
from masktool.errors import MasktoolError

Headers = Mapping[str, Header | None]
Problems = list[Problem]


def read_dataset(
    folder: Path,
    *,
    labels: Path | None = None,
    boxes: Path | None = None,
    masks: Path | None = None,
    segments: Path | None = None,
    class_names: Sequence[str] | None = None,
    n_classes: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Returns the data set of a folder of images and their annotations; no pixel is decoded.

    Values that cannot be used are problems, and the image goes without; an image that does not open stays in the data
    set, and is reported when it is read. Pixels of objects come from ``masks`` where that is given, else from the
    segmentations in ``boxes`` where every object that counts has one.

    Args:
        folder: folder of images or, where it holds none, of subfolders of images, whose names are the labels (an index,
            or the name of a class) unless ``labels`` is given.
        labels: CSV or JSON file of labels, see :mod:`masktool.datasets.labels`; None takes the subfolders' names.
        boxes: file of objects, in masktool's own JSON, COCO JSON or Pascal VOC XML, or a folder of the latter, see the
            modules ``boxes``, ``coco`` and ``voc``; None for none.
        masks: folder of images named like the photographs, non-zero where the object is; None for none.
        segments: folder of label maps named like the photographs; None for none.
        class_names: names of the model's classes; None where it has none.
        n_classes: number of the model's classes; None where it is unknown.
        limit: largest number of images to use, evenly spread over the sorted names; None uses all.

    Raises:
        MasktoolError: there are no images, or a file cannot be read or is not what it should be.
    """
    paths = list_images(folder)
    names = ImageNames(paths)
    chosen = dict.fromkeys(spread_evenly(paths, limit))
    classes = Classes(class_names, n_classes)
    sized = boxes is not None or masks is not None or segments is not None
    headers = {name: read_image_header(paths[name]) if sized else None for name in chosen}
    problems: Problems = []
    label_of, found = label_images(labels, names, chosen, classes)
    problems += found
    boxes_of, outline_of, found = find_objects(boxes, names, headers, label_of, classes)
    problems += found
    mask_of, found = find_pixel_files(masks, names, headers, "mask")
    problems += found
    segments_of, found = find_pixel_files(segments, names, headers, "label map")
    problems += found
    images = tuple(
        DatasetImage(
            name,
            paths[name],
            label_of.get(name),
            boxes_of.get(name, ()),
            mask_of.get(name) if masks is not None else outline_of.get(name),
            segments_of.get(name),
        )
        for name in chosen
    )
    return Dataset(images, tuple(problems))


def label_images(
    path: Path | None, names: ImageNames, chosen: Collection[str], classes: Classes
) -> tuple[dict[str, int], Problems]:
    """Returns the images' classes from a file, else from their subfolders."""
    if path is None:
        return label_by_folder(chosen, classes)
    values, problems = match_entries(read_label_entries(path), names, chosen, path.name, "label")
    label_of = {}
    for name, value in values.items():
        try:
            label_of[name] = classes.resolve(value)
        except MasktoolError as error:
            problems.append(Problem(f"{path.name}: {name}", str(error)))
    return label_of, problems


def label_by_folder(chosen: Collection[str], classes: Classes) -> tuple[dict[str, int], Problems]:
    """Returns the images' classes as their subfolders are called; one problem per subfolder that is no class."""
    counts = Counter(folder for name in chosen if (folder := class_folder(name)) is not None)
    index_of, problems = {}, []
    for folder, count in counts.items():
        try:
            index_of[folder] = classes.resolve(folder)
        except MasktoolError as error:
            problems.append(Problem(f"{folder}/", f"{error}; images left without a label: {count}"))
    folders = {name: class_folder(name) for name in chosen}
    return {name: index_of[folder] for name, folder in folders.items() if folder in index_of}, problems


def find_objects(
    path: Path | None, names: ImageNames, headers: Headers, label_of: Mapping[str, int], classes: Classes
) -> tuple[dict[str, tuple[Box, ...]], dict[str, RunLengthMask], Problems]:
    """Returns the boxes of the images' objects, and their pixels where the file has them."""
    if path is None:
        return {}, {}, []
    entries = [(entry.name, entry) for entry in read_objects(path)]
    if any(each.segmentation is not None for _, entry in entries for each in entry.objects):
        require_pycocotools()
    annotated, problems = match_entries(entries, names, headers, path.name, "boxes")
    boxes_of, outline_of = {}, {}
    for name, entry in annotated.items():
        boxes, outline, remarks = fit_objects(entry, headers[name], label_of.get(name), classes)
        problems += [Problem(f"{path.name}: {name}", remark) for remark in remarks]
        if boxes:
            boxes_of[name] = boxes
        if outline is not None:
            outline_of[name] = outline
    return boxes_of, outline_of, problems


def fit_objects(
    entry: AnnotatedImage, header: Header | None, label: int | None, classes: Classes
) -> tuple[tuple[Box, ...], RunLengthMask | None, list[str]]:
    """Returns the boxes and pixels of one image's objects that count, and what is wrong with the others."""
    size = header.upright if header is not None else None
    if size is not None and entry.size not in (None, size):
        width, height = entry.size or (0, 0)
        return (), None, [f"annotated at {width:g} x {height:g}, the image has {size[0]} x {size[1]}; not used"]
    objects, remark = choose_objects(entry, label, classes)
    remarks = [remark] if remark is not None else []
    boxes: list[Box] = []
    kept: list[AnnotatedObject] = []
    for each in objects:
        box, fault = fit_box(each.box, size)
        remarks += [fault] if fault is not None else []
        if box is not None:
            boxes.append(box)
            kept.append(each)
    outline, fault = outline_objects(kept, size)
    remarks += [fault] if fault is not None else []
    return tuple(boxes), outline, remarks


def outline_objects(
    objects: Sequence[AnnotatedObject], size: tuple[int, int] | None
) -> tuple[RunLengthMask | None, str | None]:
    """Returns the pixels of objects that all have a segmentation, else None; and what is wrong with these."""
    segmentations = [each.segmentation for each in objects]
    if size is None or not segmentations or any(each is None for each in segmentations):
        return None, None
    try:
        return merge_segmentations(segmentations, size), None
    except MasktoolError as error:
        return None, f"{error}; the boxes stand for the object"
