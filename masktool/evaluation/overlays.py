"""Overlays that evaluations leave behind as samples, arranged to be compared: per image, masking modes by methods."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Collection, Mapping
from pathlib import Path

from PIL import Image

from masktool.evaluation.saved import find_inside
from masktool.runtime.pictures import open_picture

FOLDER = "overlays"
SUFFIX = ".png"
WIDEST = 640
"""Greatest width in pixels: wider overlays are scaled down, for a page holds many of them."""
QUALITY = 85
"""Quality of the JPEGs."""


@dataclasses.dataclass(frozen=True)
class Overlay:
    """One method's map over one image, from one model.

    Attributes:
        image: name of the image.
        model: name of the model, its masking mode.
        method: name of the method of explanation.
        path: path of the overlay's PNG.
    """

    image: str
    model: str
    method: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Sheet:
    """All overlays of one image.

    Attributes:
        image: name of the image.
        models: names of the models, the rows.
        methods: names of the methods, the columns.
        uris: data URIs of the overlays, by (model, method); some may be missing.
    """

    image: str
    models: tuple[str, ...]
    methods: tuple[str, ...]
    uris: Mapping[tuple[str, str], str]


def find_overlays(directory: Path, models: Collection[str]) -> list[Overlay]:
    """Returns the overlays ``overlays/IMAGE.MODEL.METHOD.png`` below a directory, by name.

    Args:
        directory: directory of the evaluations.
        models: names of models that are known; one may contain dots.
    """
    paths = sorted(path for path in (directory / FOLDER).glob(f"*{SUFFIX}") if not path.name.startswith("."))
    return [overlay for path in paths if (overlay := read_name(path, models)) is not None]


def read_name(path: Path, models: Collection[str]) -> Overlay | None:
    """Returns the overlay that a file is by its name; None for a file of another kind."""
    rest, _, method = path.name.removesuffix(SUFFIX).rpartition(".")
    known = sorted((name for name in models if rest.endswith(f".{name}")), key=len)
    image, _, model = (rest[: -len(known[-1]) - 1], ".", known[-1]) if known else rest.rpartition(".")
    return Overlay(image, model, method, path) if image and model and method else None


def arrange(overlays: Collection[Overlay], models: Collection[str], limit: int) -> list[Sheet]:
    """Returns one sheet of overlays for each of the first images.

    Args:
        overlays: overlays of any number of images.
        models: names of models in the order of the rows; others follow.
        limit: largest number of images.

    Raises:
        MasktoolError: an overlay cannot be read.
    """
    sheets = []
    for image in list(dict.fromkeys(overlay.image for overlay in overlays))[:limit]:
        own = [overlay for overlay in overlays if overlay.image == image]
        rows = dict.fromkeys(overlay.model for overlay in own)
        sheets.append(
            Sheet(
                image,
                models=(*(name for name in models if name in rows), *(name for name in rows if name not in models)),
                methods=tuple(dict.fromkeys(overlay.method for overlay in own)),
                uris={(overlay.model, overlay.method): embed_overlay(overlay.path) for overlay in own},
            )
        )
    return sheets


def embed_overlay(path: Path) -> str:
    """Returns an overlay as a data URI of a JPEG, scaled down to :data:`WIDEST`.

    Raises:
        MasktoolError: the overlay cannot be read.
    """
    stream = io.BytesIO()
    with open_picture(find_inside(path.parent, path.name)) as image:
        shown = image.convert("RGB")
    if shown.width > WIDEST:
        shown = shown.resize((WIDEST, round(shown.height * WIDEST / shown.width)), Image.Resampling.LANCZOS)
    shown.save(stream, format="JPEG", quality=QUALITY)
    return data_uri(stream.getvalue(), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """Returns bytes as a data URI (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
