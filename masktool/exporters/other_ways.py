"""Finds other options under which a refused source can be exported, by an export, so that the advice is true."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from masktool.contract import DEFAULT_BASELINE, Size
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.exporters.onnx_file import find_image_input, fix_size, open_size_of
from masktool.exporters.settings import ExportSettings
from masktool.exporters.size_trial import advise_size
from masktool.exporters.sources import Source
from masktool.messages import parameter

Attempt = Callable[[Source, Path, ExportSettings], object]
"""A function that exports a source to a path with given settings."""


@contextlib.contextmanager
def advising_fill(source: Source, settings: ExportSettings, attempt: Attempt) -> Iterator[None]:
    """Adds to a refusal that ``masking="fill"`` takes the source, where an export shows that.

    Args:
        source: the source with all its outputs.
        settings: the settings of the export that may be refused.
        attempt: the function that exports a source.
    """
    try:
        yield
    except MasktoolError as error:
        filled = ExportSettings(settings.output, masking="fill", baseline=DEFAULT_BASELINE)
        if settings.masking == "fill" or not can_export(source, filled, attempt):
            raise
        raise error.advised(parameter("masking", "fill") + " takes this file") from error.__cause__ or error


@contextlib.contextmanager
def advising_a_size(source: Source, settings: ExportSettings, size: Size, attempt: Attempt) -> Iterator[None]:
    """Adds to a refusal of gradients that a fixed input size settles it, where an export shows that.

    Args:
        source: the source with all its outputs.
        settings: the settings of the export that may be refused.
        size: (height, width) at which the source runs.
        attempt: the function that exports a source.
    """
    try:
        yield
    except UnsupportedOperatorError as error:
        baseline = DEFAULT_BASELINE if settings.masking == "fill" else None
        masking, rule = settings.masking, settings.rule
        sized = ExportSettings(
            settings.output, masking=masking, baseline=baseline, gradient=settings.gradient, rule=rule
        )
        fixed = None if settings.gradient is None else with_size(source, size)
        if fixed is None or not can_export(fixed, sized, attempt):
            raise
        raise error.advised(advise_size(error)) from error


def can_export(source: Source, settings: ExportSettings, attempt: Attempt) -> bool:
    """Tells whether a source can be exported with given settings, by exporting it to a temporary file."""
    with tempfile.TemporaryDirectory(prefix="masktool-") as directory:
        try:
            attempt(source, Path(directory) / "other.onnx", settings)
        except MasktoolError:
            return False
    return True


def with_size(source: Source, size: Size) -> Source | None:
    """Returns a source with its open height or width fixed to ``size``; None where both are fixed already."""
    model = source.model.clone()
    image = find_image_input(model, source.image_input)
    if None not in open_size_of(image):
        return None
    fix_size(image, size)
    return dataclasses.replace(source, model=model)
