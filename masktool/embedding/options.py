"""The options of a method that becomes part of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from masktool.embedding.method import EMBEDDED_METHODS
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS, Method, build_method
from masktool.messages import Placeholder, call

INSTEAD: Mapping[str, str] = {
    "masker": "a masking model is trained, and its file has the map already: "
    + call("train_masker", Placeholder("MODEL"), Placeholder("FOLDER"), "masker.onnx"),
    "recipro-cam": "its masks lie at a feature map, and those of a file that explains itself at the image: add "
    "grad-cam",
    "eigen-cam": "no operator of ONNX finds a principal component: add layercam",
    "score-cam": "its masks are the image's own feature map, and those of a file are settled at export: add layercam",
    "coarse-to-fine": "which windows it hides depends on the scores of others, and the masks of a file are settled at "
    "export: add occlusion",
}
"""What to do instead, and why, for the methods that cannot be part of a file."""


def build_embedded_method(name: str, options: Mapping[str, Any], n_samples: int | None = None) -> Method:
    """Builds a method with the options of :func:`masktool.explainers.method.build_method` and a file's defaults.

    Args:
        name: the name of the method.
        options: the method's options by name; an option that is left out takes its default in files, else its default.
        n_samples: the number of masks or steps; None leaves it to ``options``. Where it is left open there too it is
            the method's largest: a file always draws the same number.

    Raises:
        MasktoolError: the method or an option is unknown, a value is out of range, or the method cannot be part of a
            file.
    """
    title = METHODS.find(name).title  # a name that is no method's at all is told as such
    if name not in EMBEDDED_METHODS:
        raise MasktoolError(
            f"{title} is no method that an export can add",
            where=name,
            expected=f"one of {', '.join(EMBEDDED_METHODS)}",
            fix=INSTEAD[name],
        )
    builder = EMBEDDED_METHODS[name]
    built = build_method(name, {**builder.defaults, **options}, n_samples)
    return dataclasses.replace(built, **{built.samples_option: built.sample_limit}) if built.samples_option else built
