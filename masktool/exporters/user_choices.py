"""Reads preprocessing and labels in every form in which a user may give them: by name, in a file, in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from masktool.baselines import choose_baseline
from masktool.contract import (
    DEFAULT_SIZE,
    DeviceProvider,
    FilePrecision,
    Loss,
    Masking,
    OutputKind,
    Preprocessing,
    SamplerRule,
    Size,
)
from masktool.data_files import shorten
from masktool.errors import MasktoolError
from masktool.exported_files import name_feature_maps
from masktool.exporters.presets import PRESETS, labels_from, preprocessing_for, preprocessing_preset, size_in_file
from masktool.exporters.settings import ExportSettings, LabelsLike, OutputSettings, PreprocessingLike, Preset
from masktool.exporters.source_kinds import FileKind, detect_kind
from masktool.layouts import show_size
from masktool.messages import SIZE, parameter
from masktool.sampler_rules import choose_rule

if TYPE_CHECKING:
    from masktool.exporters.sources import Source
    from masktool.exporters.torch_sources.modules import LoadedModule


def read_preprocessing_like(given: PreprocessingLike | None) -> Preprocessing | Preset | None:
    """Returns preprocessing that a user gave in any form as a :class:`Preprocessing` or a :class:`Preset`.

    Raises:
        MasktoolError: the preprocessing has another form.
    """
    if given is None or isinstance(given, Preprocessing | Preset):
        return given
    if isinstance(given, str | os.PathLike):
        return Preset(given)
    raise MasktoolError(
        "not a preprocessing",
        where=parameter("preprocessing"),
        expected=f"{', '.join(PRESETS)}, the path of a JSON file, a masktool.Preset or a masktool.Preprocessing",
        got=type(given).__name__,
    )


def read_labels(given: LabelsLike | None) -> tuple[str, ...] | None:
    """Returns the names of the classes that a user gave: the path of a file of labels, or the names themselves.

    Raises:
        MasktoolError: the file cannot be read, or something given is no name.
    """
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        return labels_from(Path(given))
    if not isinstance(given, Sequence):
        raise MasktoolError(
            "not labels",
            where=parameter("labels"),
            expected="the path of a file, or one name per class",
            got=type(given).__name__,
        )
    for index, name in enumerate(given):
        if not isinstance(name, str) or not name.strip():
            raise MasktoolError("not a class name", where=f"labels, class {index}", got=shorten(name))
    return tuple(given)


def read_settings(
    *,
    masking: Masking | None = None,
    baseline: str | None = None,
    preprocessing: PreprocessingLike | None = None,
    labels: LabelsLike | None = None,
    class_output: str | None = None,
    output_kind: OutputKind | None = None,
    mask_required: bool | None = None,
    gradient: Loss | None = None,
    feature_map: str | Sequence[str] | None = None,
    portable: bool = False,
    precision: FilePrecision | None = None,
    for_provider: DeviceProvider | None = None,
    head: str | None = None,
    plain_branch: bool = False,
    rule: SamplerRule | None = None,
    gradient_output: str | None = None,
) -> ExportSettings:
    """Returns the settings of an export from what a user gave; the arguments are those of :func:`masktool.export`.

    Raises:
        MasktoolError: something given cannot be read or used.
    """
    settings = ExportSettings(
        OutputSettings(class_output, output_kind, read_labels(labels)),
        masking or "layer",
        baseline,
        mask_required,
        read_preprocessing_like(preprocessing),
        gradient,
        name_feature_maps(feature_map),
        portable,
        precision,
        for_provider,
        head,
        plain_branch,
        gradient_output=gradient_output,
    )
    mode = settings.masking
    return dataclasses.replace(settings, baseline=choose_baseline(mode, baseline), rule=choose_rule(mode, rule))


def said_size(choice: Preprocessing | Preset | None) -> Size | None:
    """Returns the (height, width) that a user's preprocessing names; None where it names none."""
    if isinstance(choice, Preprocessing):
        return choice.size
    return None if choice is None else size_in_file(choice.text)


def source_size(model: object, input_size: Size | None, preprocessing: PreprocessingLike | None) -> Size | None:
    """Returns the (height, width) that a model is read with; None where neither the user nor the preprocessing says.

    Args:
        model: the path of a file, a hub name, a torch module or an ONNX model.
        input_size: (height, width) in pixels as the user says, which counts first; None where the user does not say.
        preprocessing: the preprocessing as the user gave it; its size counts for torch's weights, programs and modules,
            which may fix none. An ONNX model is asked itself, and a hub has a configuration.
    """
    from masktool.exporters.torch_sources.module_export import is_module

    choice = read_preprocessing_like(preprocessing)
    if input_size is not None or choice is None:
        return input_size
    if not isinstance(model, str | os.PathLike):
        return said_size(choice) if is_module(model) else None
    if not Path(model).is_file() or detect_kind(Path(model)) is FileKind.ONNX:
        return None
    return said_size(choice)


def source_preprocessing(source: Source, preprocessing: PreprocessingLike | None) -> Preprocessing | None:
    """Returns the preprocessing for a source: the user's, else the source's own; None where neither is known.

    Raises:
        MasktoolError: a preset does not fit the source's image input.
    """
    choice = read_preprocessing_like(preprocessing)
    if not isinstance(choice, Preset):
        return choice or source.preprocessing
    return preprocessing_for(source.model, choice.text, choice.mean, choice.std, image_input=source.image_input)


def module_preprocessing(
    loaded: LoadedModule,
    input_size: Size | None,
    preprocessing: PreprocessingLike | None,
    channels: int | None = None,
) -> Preprocessing | None:
    """Returns the preprocessing that a user gives for a torch module; None where the user gives none.

    Where neither the caller nor the module tell the input's size, that in a preprocessing file counts.

    Args:
        loaded: the module.
        input_size: (height, width) of the images in pixels, as the user says; None where the user does not say.
        preprocessing: the preprocessing as the user gave it; None keeps that of the module's hub.
        channels: the number of channels of the images; None finds it.

    Raises:
        MasktoolError: the preprocessing is unknown, cannot be read or does not fit, the input's size is unknown, or
            ``channels`` are given without a preprocessing.
    """
    from masktool.exporters.torch_sources.module_export import find_channels

    choice = read_preprocessing_like(preprocessing)
    if not isinstance(choice, Preset):
        if channels is not None and choice is None:
            raise MasktoolError(
                parameter("channels") + " without a preprocessing for them",
                where=loaded.name,
                fix="add " + parameter("preprocessing"),
            )
        return choice
    size = input_size or loaded.input_size
    if size is None and loaded.known.preprocessing is not None:
        size = loaded.known.preprocessing.size
    if size is None and choice.text not in (None, *PRESETS):
        size = size_in_file(choice.text) or DEFAULT_SIZE
    if size is None:
        raise MasktoolError("input size unknown", where=loaded.name, fix="add " + parameter("input_size", SIZE))
    if channels is None:
        channels, _ = find_channels(loaded.known.module, size, loaded.known.channels)
    if len(size) != len(DEFAULT_SIZE):
        raise MasktoolError("photographs are of two axes", where=parameter("input_size"), got=show_size(size))
    return preprocessing_preset(choice.text, (size[0], size[1]), choice.mean, choice.std, channels=channels)
