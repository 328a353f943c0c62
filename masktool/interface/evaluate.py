"""How far explanations, and the masking beneath them, can be trusted: :func:`evaluate`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masktool.errors import MasktoolError
from masktool.evaluation.findings import Evaluation
from masktool.evaluation.results import journal_path, write_evaluation
from masktool.evaluation.running import run_part
from masktool.interface.options import EXPORT_OPTIONS, ModelLike
from masktool.interface.part_options import PART_OPTIONS, PartOptions
from masktool.interface.study import Study
from masktool.progress import Progress, Say, log, no_progress

NOT_OF_STUDIES = ("labels", "masking", "baseline", "rule")
"""Options of an export that ``evaluate`` sets itself: its ``labels`` are the images', the modes choose the others."""


def evaluate(
    part: str,
    model: ModelLike,
    folder: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    segments_folder: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    provider_options: Mapping[str, object] | None = None,
    progress: Progress = no_progress,
    say: Say = log,
    **options: Any,
) -> Evaluation:
    """Measures how far explanations, or the masking, can be trusted, on a folder of images.

    Args:
        part: what is measured: ``compare``, ``missingness``, ``faithfulness``, ``localisation``, ``lime-alignment`` or
            ``randomisation``.
        model: a model, as for :func:`masktool.load`; one that is not masked yet is exported in every masking mode.
        folder: the folder of the images.
        labels: the file with the images' classes, CSV or JSON; None takes the names of the folder's subfolders.
        boxes: the file or folder with the objects' boxes (JSON, COCO JSON, or Pascal VOC XML); None where there are
            none.
        masks: the folder with the objects' pixels, a file per image, not 0 where the object is; None where there are
            none.
        segments_folder: the folder with label maps of the images' parts, a file per image; None where there are none.
        limit: the largest number of images to use, evenly spread over the names; None uses all.
        directory: the directory to write figures and charts into; with one, an interrupted measurement goes on where it
            was. None writes nothing.
        seed: the seed of every random choice.
        perturbations_per_eval: the number of masks per forward pass; None chooses it from the input's size.
        providers: ONNX Runtime's execution providers, as for :func:`masktool.load`.
        threads: the number of threads that one node may use, as for :func:`masktool.load`.
        provider_options: options of the providers, as for :func:`masktool.load`.
        progress: function that takes a description and the number of images, and returns a context manager; that yields
            a function which is called with the number of images just done.
        say: function that is called with what the user should know, a line at a time; by default it writes to the
            logger ``masktool`` (level INFO).
        **options: the part's own options, see ``masktool.interface.parts``; and, for a model that is not masked yet,
            those of :class:`masktool.ExportOptions` except ``labels``, ``masking``, ``baseline`` and ``rule``: the
            part's modes choose the masking.

    Returns:
        Tables with bootstrap intervals, charts, notes, problems with the data, and the record of every image.

    Raises:
        MasktoolError: no image could be measured, or a model, a file of data or an option cannot be used.
    """
    own, of_export = split_part_options(part, options)
    with contextlib.ExitStack() as stack:
        study = Study(
            model=model,
            folder=Path(folder),
            stack=stack,
            export=of_export,  # type: ignore[arg-type]  # its names were checked
            labels=as_path("labels", labels),
            boxes=as_path("boxes", boxes),
            masks=as_path("masks", masks),
            segments_folder=as_path("segments_folder", segments_folder),
            limit=limit,
            seed=seed,
            batch=perturbations_per_eval,
            directory=as_path("directory", directory),
            providers=providers,
            threads=threads,
            provider_options=provider_options,
            say=say,
        )
        built = PART_OPTIONS.find(part)(**own).build(study)
        journal = None if study.directory is None else journal_path(study.directory, part)
        evaluation = run_part(built, study.dataset(), journal, progress, say)
        if study.directory is not None:
            write_evaluation(evaluation, study.directory)
    return evaluation


def split_part_options(part: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options of the part, and those of an export.

    Raises:
        MasktoolError: there is no such part, or an option belongs to neither the part nor an export.
    """
    kind: type[PartOptions] = PART_OPTIONS.find(part)
    own = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    of_export = [name for name in EXPORT_OPTIONS if name not in NOT_OF_STUDIES]
    if unknown := sorted(set(options) - {*own, *of_export}):
        raise MasktoolError(
            f"unknown option of {part}",
            where=", ".join(unknown),
            expected=f"some of {', '.join((*own, *of_export))}",
        )
    chosen = {name: value for name, value in options.items() if name in own}
    return chosen, {name: value for name, value in options.items() if name not in chosen}


def as_path(name: str, path: str | os.PathLike[str] | None) -> Path | None:
    """Returns a parameter's value as a ``Path``, None for None, or raises a MasktoolError that names the parameter."""
    if path is not None and not isinstance(path, str | os.PathLike):
        raise MasktoolError("not a path", where=name, expected="a file or folder", got=type(path).__name__)
    return None if path is None else Path(path)
