"""The options of a method that becomes part of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masktool.embedding.method import EMBEDDED_METHODS
from masktool.explainers.method import METHODS, Method, build_method


def build_embedded_method(name: str, options: Mapping[str, Any], n_samples: int | None = None) -> Method:
    """Builds a method with the options of :func:`masktool.explainers.method.build_method` and a file's defaults.

    Args:
        name: the name of the method.
        options: the method's options by name; an option that is left out takes its default in files, else its default.
        n_samples: the number of masks or steps; None leaves it to ``options``.

    Raises:
        MasktoolError: the method or an option is unknown, a value is out of range, or the method cannot be part of a
            file.
    """
    METHODS.find(name)  # a name that is no method's at all is told as such
    builder = EMBEDDED_METHODS.find(name)
    return build_method(name, {**builder.defaults, **options}, n_samples)
