"""Reads preprocessing and labels that the user names because the source does not know them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir

from masktool.contract import DEFAULT_SIZE, ChannelOrder, Layout, PictureLayout, Preprocessing, conforms
from masktool.data_files import is_there, parse_json, read_json, read_text, shorten
from masktool.errors import MasktoolError
from masktool.exporters.onnx_file import channels_of, describe_value, find_image_input, layout_of, open_size_of
from masktool.messages import differently, parameter

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN = (104.0, 117.0, 123.0)
"""Blue, green, red: ImageNet's mean in 0..255, as Caffe's models round it."""
SHORTER_SIDE_RATIO = 256 / 224
"""The shorter side is scaled to 256 before a crop of 224: ImageNet's custom since AlexNet."""
PRESETS = ("imagenet", "caffe", "tf", "yolo")
"""``imagenet``: RGB 0..1, ImageNet's mean and std. ``caffe``: BGR 0..255 minus the mean. ``tf``: RGB in -1..1.
``yolo``: RGB 0..1, the whole photograph fitted into the input with grey around it."""
LETTERBOX_GREY = 114.0
"""What YOLO's networks are trained with around photographs."""
CHANNELS_OF_ORDER: Mapping[str, int] = {"RGB": 3, "BGR": 3, "L": 1}
UNIT_SCALE = 1 / 255
"""Pixels become 0..1, where a mean above 1 is surely meant for 0..255."""
SHORTEST = '"resize": "shortest" (the default)'
Complaint = tuple[str, str]
"""A field's name, and what it should hold."""


def preprocessing_preset(
    name_or_file: str | None,
    size: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    channels: int = 3,
    layout: PictureLayout = "NCHW",
) -> Preprocessing:
    """Builds the preprocessing that ``--preprocess``, ``--mean`` and ``--std`` describe.

    Args:
        name_or_file: ``imagenet``, ``caffe``, ``tf``, ``yolo`` or a JSON file with the fields of ``Preprocessing``;
            None takes plain pixels in 0..1 with ImageNet's resize and crop.
        size: (height, width) of the model's input.
        mean: the mean of each channel, in units of the scaled pixels, in the preset's channel order; None keeps the
            preset's.
        std: the standard deviation of each channel, in the same units and order; None keeps the preset's.
        channels: the number of channels of the model's input.
        layout: the layout of the model's input.

    Raises:
        MasktoolError: the name is unknown, the file is bad, or numbers do not fit the model.
    """
    if name_or_file is None or name_or_file in PRESETS:
        base = _named_preset(name_or_file, size, channels, own_mean=mean is not None)
    else:
        base = read_preprocessing(Path(name_or_file), size)
    changes: dict[str, Any] = {"layout": layout}
    if mean is not None:
        changes["mean"] = tuple(mean)
    if std is not None:
        changes["std"] = tuple(std)
    return check_preprocessing(dataclasses.replace(base, **changes), size, channels)


def preprocessing_for(
    model: onnx_ir.Model,
    name_or_file: str | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    image_input: str | None = None,
) -> Preprocessing:
    """Builds the preprocessing that the options describe, for the size, channels and layout of a model's image input.

    Where the model leaves height or width open, the file's ``size`` counts, else the size of most networks.

    Raises:
        MasktoolError: the name is unknown, the file is bad, numbers do not fit the model, or the model leaves its
            channels open.
    """
    image = find_image_input(model, image_input)
    channels = channels_of(model, image_input)
    if channels is None:
        raise MasktoolError("number of channels unknown", where=parameter("preprocessing"), got=describe_value(image))
    layout, sides = layout_of_photographs(layout_of(image)), open_size_of(image)
    if None in sides and name_or_file is not None and name_or_file not in PRESETS:
        usual = read_preprocessing(Path(name_or_file), DEFAULT_SIZE).size
    else:
        usual = DEFAULT_SIZE
    size = (sides[0] or usual[0], sides[1] or usual[1])
    return preprocessing_preset(name_or_file, size, mean, std, channels=channels, layout=layout)


def layout_of_photographs(layout: Layout) -> PictureLayout:
    """Returns the layout of an input that photographs are prepared for; MasktoolError for one of another rank."""
    if layout == "NCHW" or layout == "NHWC":
        return layout
    raise MasktoolError(
        "photographs are not prepared for such an input",
        where=parameter("preprocessing"),
        expected="an input (N, C, H, W) or (N, H, W, C)",
        got=f"({', '.join(layout)})",
        fix="leave the preprocessing out, and give the input itself as an array or a .npy file",
    )


def _named_preset(name: str | None, size: tuple[int, int], channels: int, *, own_mean: bool) -> Preprocessing:
    plain = Preprocessing(
        size=size,
        resize_to=round(min(size) * SHORTER_SIDE_RATIO),
        channel_order="L" if channels == 1 else "RGB",
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    if name is None:
        return plain
    if name == "yolo":
        return dataclasses.replace(plain, resize="letterbox", resize_to=None, padding=LETTERBOX_GREY)
    if name == "tf":
        return dataclasses.replace(plain, scale=1 / 127.5, mean=(1.0,) * channels)
    if channels != len(IMAGENET_MEAN) and not own_mean:
        raise MasktoolError(
            "preset for colour images",
            where=parameter("preprocessing", name),
            expected="3 channels",
            got=channels,
            fix=differently(python="give a Preprocessing with a mean of its own", command="add --mean"),
        )
    if name == "caffe":
        order: ChannelOrder = "L" if channels == 1 else "BGR"
        return dataclasses.replace(plain, scale=1.0, channel_order=order, mean=CAFFE_MEAN)
    return dataclasses.replace(plain, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def read_preprocessing(path: Path, size: tuple[int, int]) -> Preprocessing:
    """Reads a JSON file with the fields of ``Preprocessing``; ``size`` may be left out.

    Raises:
        MasktoolError: there is no such preset or file, or the file holds other JSON or none.
    """
    document = read_document(path)
    return Preprocessing.from_json({"size": list(size), **document})


def read_document(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a preprocessing file.

    Raises:
        MasktoolError: there is no such preset or file, or the file holds no JSON object.
    """
    expected = f"{', '.join(PRESETS)} or a JSON file"
    if not is_there(path):
        raise MasktoolError("no such file", where=parameter("preprocessing", path), expected=expected)
    document = read_json(path, expected, "text")
    if not isinstance(document, dict):
        raise MasktoolError("not a JSON object", where=path, expected='{"mean": [...], ...}')
    return document


def size_in_file(name_or_file: str | None) -> tuple[int, int] | None:
    """Returns the (height, width) that a preprocessing file names; None where it names none or no file is given."""
    if name_or_file is None or name_or_file in PRESETS:
        return None
    path = Path(name_or_file)
    return read_preprocessing(path, DEFAULT_SIZE).size if "size" in read_document(path) else None


def check_preprocessing(preprocessing: Preprocessing, size: tuple[int, int], channels: int) -> Preprocessing:
    """Returns the preprocessing if its numbers are possible and fit the model.

    Raises:
        MasktoolError: a field is impossible or does not fit; the message names the first such field.
    """
    complaints = itertools.chain(check_geometry(preprocessing, size), check_channel_numbers(preprocessing, channels))
    for field, expected in complaints:
        raise MasktoolError("bad preprocessing", where=field, expected=expected, got=getattr(preprocessing, field))
    return preprocessing


def check_geometry(preprocessing: Preprocessing, size: tuple[int, int]) -> Iterator[Complaint]:
    """Yields the fields of sizes that are impossible or do not fit the model."""
    if tuple(preprocessing.size) != tuple(size):
        yield "size", f"{size}, the model's input"
    side = preprocessing.resize_to
    if preprocessing.resize == "shortest" and not (isinstance(side, int) and side > 0):
        yield "resize_to", f'a length in pixels, which {SHORTEST} needs; or "resize": "exact", "letterbox" or "none"'


def check_channel_numbers(preprocessing: Preprocessing, channels: int) -> Iterator[Complaint]:
    """Yields the fields among channels, scale, mean and std that are impossible or do not fit the model."""
    if CHANNELS_OF_ORDER[preprocessing.channel_order] != channels:
        yield "channel_order", f"one for {channels} channels"
    if not is_finite_number(preprocessing.scale) or preprocessing.scale <= 0:
        yield "scale", "a positive number"
    for field in ("mean", "std"):
        values = getattr(preprocessing, field)
        if (
            not isinstance(values, tuple)
            or len(values) != channels
            or not all(is_finite_number(value) for value in values)
        ):
            yield field, f"{channels} numbers"
    if 0 in preprocessing.std:
        yield "std", "no 0"
    if preprocessing.scale == UNIT_SCALE and max(preprocessing.mean) > 1:
        yield (
            "mean",
            "at most 1, since pixels are scaled to 0..1 (for 0..255: "
            + parameter("preprocessing", "caffe")
            + " or a file with scale 1)",
        )


def is_finite_number(value: object) -> bool:
    """Tells whether a value is a finite number."""
    return conforms(value, float)


def labels_from(path: str | Path) -> tuple[str, ...]:
    """Reads class names, in class order.

    Args:
        path: the path of a text file with one name per line, or of a ``.json`` file: a list of names or of
            [synset, name] pairs, or an object of index to name or to [synset, name].

    Raises:
        MasktoolError: the file cannot be read, or indices are missing.
    """
    path = Path(path)
    text = read_text(path, "a file of labels", "text")
    if path.suffix.lower() == ".json":
        return _labels_from_json(parse_json(text, path, "labels"), path)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not all(line.strip() for line in lines):
        raise MasktoolError("an empty label", where=parameter("labels", path), expected="one name per line")
    return tuple(line.strip() for line in lines)


def _labels_from_json(document: Any, path: Path) -> tuple[str, ...]:
    if isinstance(document, dict):
        try:
            numbered = {int(index): entry for index, entry in document.items()}
            entries = [numbered[index] for index in range(len(numbered))]
        except (ValueError, KeyError) as error:
            raise MasktoolError(
                "labels without an order", where=parameter("labels", path), expected="keys 0 to K-1", got=f"key {error}"
            ) from error
    elif isinstance(document, list):
        entries = document
    else:
        raise MasktoolError("not labels", where=parameter("labels", path), expected="a JSON list or object")
    names = [entry[-1] if isinstance(entry, list) and entry else entry for entry in entries]
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise MasktoolError(
                "not a class name", where=parameter("labels", path) + f", class {index}", got=shorten(entries[index])
            )
    if not names:
        raise MasktoolError("no labels", where=parameter("labels", path))
    return tuple(names)
