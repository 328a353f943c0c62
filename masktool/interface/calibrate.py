"""Correcting the class scores of an exported file where something is missing: :func:`calibrate`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masktool.calibration.choosing import (
    Choice,
    HeldOutFigures,
    choose_correction,
    cross_validate,
)
from masktool.contract import Metadata
from masktool.correction import Space
from masktool.data_files import is_directory
from masktool.errors import MasktoolError
from masktool.evaluation.bootstrap import Interval, interval_of_mean
from masktool.explainers.explaining import limit_linear_algebra
from masktool.explainers.subject import ImageLike
from masktool.files import check_target, temporary_directory
from masktool.interface.calibration_scores import RandomCells, score_images
from masktool.interface.photographs import list_photographs
from masktool.layouts import refuse_unless_images
from masktool.messages import call, parameter
from masktool.option_checks import check_count
from masktool.progress import Progress, Say, log, no_progress
from masktool.runtime.session import MaskedSession
from masktool.streams import unheard

if TYPE_CHECKING:
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Model, Source

__all__ = ["calibrate"]

N_MASKS = 20
"""Default number of masks of each image: ten fractions, twice."""
N_FOLDS = 5
"""Default number of folds: each image is judged by corrections that four fifths of all images gave."""
FEW_IMAGES = 30
"""Below this many images, the user is told that few tell little."""
LEAST_IMAGES = 5
"""Below this many images, no fold that is left out leaves enough to choose by."""


@unheard()
def calibrate(
    model: Model | Source,
    images: str | os.PathLike[str] | Sequence[ImageLike],
    path: str | os.PathLike[str],
    *,
    masks_per_image: int = N_MASKS,
    cell_sides: Sequence[int] = (),
    n_folds: int = N_FOLDS,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    provider_options: Mapping[str, object] | None = None,
    progress: Progress = no_progress,
    say: Say = log,
) -> Export:
    """Corrects the class scores of an exported file where something is missing, by images without labels.

    What a network says of an image of which parts are missing is biased: towards some classes, and in how sure it is.
    The correction A v + b of its scores (v: logits, log-probabilities or log-odds) is fitted so that the prediction
    behind random masks is as near as can be to that for the whole image, in KL divergence. A is one number, one for
    each class, or a matrix, whichever is best on images that it was not fitted on. It applies where a value of the mask
    is below 1; with nothing missing the file gives the same bits as before. A file that was calibrated before is
    calibrated anew, from the scores as they were.

    Args:
        model: the exported file's path, or the exported model in memory, in any masking mode; it stays as it is.
        images: the folder of the images, or images as :func:`masktool.explain` takes them; no labels are needed. They
            should be like those that the file will see; 30 and more.
        path: the path of the file to write; the file appears only when everything has succeeded.
        masks_per_image: the number of masks of each image; they remove from one part in so many to everything.
        cell_sides: the sides in pixels of the cells that masks are made of; empty takes a 16th, an 8th and a quarter of
            the shorter side in turn.
        n_folds: the number of folds of the images by which the gain is measured: each image is judged by corrections
            that were chosen and fitted without it.
        seed: the seed of masks and folds.
        perturbations_per_eval: the number of masks per forward pass; None chooses it from the input's size.
        providers: ONNX Runtime's execution providers, as for :func:`masktool.load`.
        threads: the number of threads that one node may use, as for :func:`masktool.load`.
        provider_options: options of the providers, as for :func:`masktool.load`.
        progress: function that takes a description and the number of images, and returns a context manager; that yields
            a function which is called with the number of images just done.
        say: function that is called with what the user should know, a line at a time; by default it writes to the
            logger ``masktool`` (level INFO).

    Returns:
        What was written; ``metadata.calibration`` holds what was fitted, on what, and the figures of held-out images
        before and after, each with its 95 % bootstrap interval over images (keys ``value``, ``low``, ``high``, ``n``):
        ``divergence`` is the KL divergence in nats from the prediction for the whole image, ``unchanged`` the share of
        masks behind which the predicted class stays.

    Raises:
        MasktoolError: the file takes no mask or holds no class scores of known kind, an image cannot be used, or
            nothing is gained: the interval of the gain in divergence does not lie above 0. Then nothing is written.

    Sources:
        "MCal", 2026, https://arxiv.org/abs/2603.04831; Guo et al., "On Calibration of Modern Neural Networks", 2017,
        https://arxiv.org/abs/1706.04599.
    """
    from masktool.exporters.sources import load_source
    from masktool.exporters.write_calibrated import write_calibrated

    check_target(path)
    design = RandomCells(
        check_count("masks_per_image", masks_per_image),
        tuple(check_count("cell_sides", side) for side in cell_sides),
        check_count("seed", seed, 0),
    )
    check_count("n_folds", n_folds, 2)
    source = load_source(model)
    space = find_space(source)
    pictures = find_images(images, say)
    refuse_too_few(len(pictures), n_folds)
    with temporary_directory() as directory:
        file = find_uncorrected(source, directory)
        with MaskedSession(file, providers=providers, threads=threads, provider_options=provider_options) as session:
            refuse_unless_images(session.layout, "a calibration", "leave it: the scores are the network's own")
            scores, left_out = score_images(session, pictures, design, space, perturbations_per_eval, progress)
            sides = None if session.known_size is None else design.sides_for(session.known_size)
    refuse_too_few(scores.n_images, n_folds, left_out)
    with limit_linear_algebra():
        gained = summarise_gain(cross_validate(scores, n_folds, seed))
        choice = choose_correction(scores, seed)
    if choice.correction is None or not gained["divergence_gain"].low > 0:
        raise nothing_gained(gained, source.name)
    fitted = {"n_images": scores.n_images, "n_masks": masks_per_image, "cell_sides": sides, "seed": seed}
    record = record_calibration(choice, gained, {**fitted, "n_folds": n_folds})
    exported = write_calibrated(source, path, choice.correction, record)
    return dataclasses.replace(exported, notes=(*exported.notes, *left_out, *note_few(scores.n_images)))


def find_space(source: Source) -> Space:
    """Returns what a correction of an exported model's scores is of; MasktoolError where they cannot be corrected."""
    from masktool.exporters.calibration import find_site, require_scores, without_correction

    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is None:
        raise MasktoolError(
            "the model takes no mask yet: masktool did not export it",
            where=source.name,
            fix="export it first: " + call("export", source.name, ...),
        )
    require_scores(recorded, source.name)
    return find_site(*without_correction(source.model, recorded)).space


def find_images(images: str | os.PathLike[str] | Sequence[ImageLike], say: Say) -> Sequence[ImageLike]:
    """Returns the images of a folder, or the images as they are given.

    Raises:
        MasktoolError: a path that is no folder.
    """
    if not isinstance(images, str | os.PathLike):
        return images
    folder = Path(images)
    if not is_directory(folder):
        raise MasktoolError(
            "not a folder" if folder.exists() else "no such folder",
            where=parameter("images", images),
            expected="a folder of photographs",
        )
    return list_photographs(folder, say)


def find_uncorrected(source: Source, directory: Path) -> Path:
    """Returns the path of a file that gives an exported model's scores as they are, and no more.

    Args:
        source: the exported model.
        directory: directory for a copy without correction and gradients, where the model has these.
    """
    from masktool.exporters.write_calibrated import write_uncorrected

    metadata = Metadata.from_properties(source.model.metadata_props)
    bare = metadata is not None and metadata.calibration is None and not metadata.has_gradients
    if source.path is not None and bare:
        return source.path
    copy = directory / "uncorrected.onnx"
    write_uncorrected(source, copy)
    return copy


def refuse_too_few(count: int, n_folds: int, left_out: Sequence[str] = ()) -> None:
    """Raises MasktoolError where there are fewer images than the folds, and the choice inside each, take."""
    least = max(n_folds, LEAST_IMAGES)
    if count < least:
        raise MasktoolError(
            "too few images to hold some out",
            where=parameter("images"),
            expected=f"at least {least}, better {FEW_IMAGES} and more",
            got=f"{count}, {left_out[0]}" if left_out else count,
            fix="give more images of the kind that the file will see",
        )


def summarise_gain(figures: HeldOutFigures) -> dict[str, Interval]:
    """Returns the held-out figures before and after, and their paired differences, each with its interval."""
    found = {
        "divergence_before": figures.divergence_before,
        "divergence_after": figures.divergence_after,
        "divergence_gain": figures.divergence_before - figures.divergence_after,
        "unchanged_before": figures.unchanged_before,
        "unchanged_after": figures.unchanged_after,
        "unchanged_gain": figures.unchanged_after - figures.unchanged_before,
    }
    return {name: interval_of_mean(values) for name, values in found.items()}


def nothing_gained(gained: Mapping[str, Interval], where: str) -> MasktoolError:
    """Returns the error for a correction that is not shown to be better than none."""
    gain = gained["divergence_gain"]
    return MasktoolError(
        "a correction gains nothing on images that it was not fitted on, so that nothing was written",
        where=where,
        expected="a gain in KL divergence whose 95 % interval lies above 0",
        got=f"{gain} nats over {gain.n} images, unchanged predictions "
        f"{gained['unchanged_before'].value:.3f} before and {gained['unchanged_after'].value:.3f} after",
        fix="give more images, or keep the file as it is",
    )


def record_calibration(choice: Choice, gained: Mapping[str, Interval], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a file's metadata say of its correction, JSON values by name."""
    assert choice.correction is not None  # as the caller has seen
    own = {"form": choice.correction.form, "space": choice.correction.space, "penalty": choice.attempt.penalty}
    return {**own, **fitted, **{name: dataclasses.asdict(interval) for name, interval in gained.items()}}


def note_few(count: int) -> tuple[str, ...]:
    """Returns a note for the user where the images were few."""
    if count >= FEW_IMAGES:
        return ()
    return (f"the correction was fitted on {count} images: from {FEW_IMAGES} on it is more to be relied on",)
