"""Asks which bands mattered: prepares an image, scores it with groups of bands missing, and returns what each gives."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Metadata
from masktool.explainers.bands.band_explanation import TITLE, BandExplanation
from masktool.explainers.bands.baselines import read_band_baseline, tell_baseline
from masktool.explainers.bands.false_colour import show_bands
from masktool.explainers.bands.filling import BandFill, make_fill
from masktool.explainers.bands.groups import BandGroup, choose_groups
from masktool.explainers.bands.importance import Importance, measure_importance
from masktool.explainers.bands.places import check_bands_can_miss
from masktool.explainers.explaining import choose_subject, limit_linear_algebra, make_task
from masktool.explainers.explanation_run import describe_origin, describe_shared_settings
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.image_inputs import prepare_inputs
from masktool.explainers.methods.kernel_shap import KernelShap
from masktool.explainers.reading import Reading, check_finite, read_scores
from masktool.explainers.subject import ImageLike, Subject, read_subject
from masktool.explainers.target import TargetLike, measure
from masktool.explainers.target_choice import find_only_value
from masktool.explainers.task import Task
from masktool.progress import no_progress
from masktool.runtime.session import MaskedSession


def explain_groups(
    session: MaskedSession,
    image: ImageLike,
    targets: Sequence[TargetLike],
    settings: ExplanationSettings,
    n_samples: int | None = None,
) -> list[BandExplanation]:
    """Explains which groups of bands every target of one image relied on.

    Args:
        session: the open model.
        image: the image, as for :func:`masktool.explain`.
        targets: the targets, each as for :func:`masktool.explain`; they share the passes.
        settings: the settings, among them the groups of bands and what stands in missing ones.
        n_samples: the number of sets of groups to sample; None scores all sets of up to 8 groups, and samples of more
            until the values are stable.

    Returns:
        One explanation per target.

    Raises:
        MasktoolError: the image, the model, a target, a group or an option cannot be used.
    """
    check_bands_can_miss(session)
    settings = dataclasses.replace(settings, inputs=prepare_inputs(session, settings.inputs, settings.input_size))
    kernel = KernelShap(n_samples=n_samples)
    started = time.perf_counter()
    subject, wanted = choose_subject(read_subject(image), targets, session, settings)
    if settings.bands is None and settings.rgb is None:
        subject = show_bands(subject, session.layout, None)
    wanted = [find_only_value(each, session).look_up(session, subject, settings.inputs) for each in wanted]
    baseline = read_band_baseline(settings.band_baseline)
    fill = make_fill(subject.prepared.array, session.layout, baseline)
    groups = choose_groups(settings.groups, fill.channels)
    with session.counter.tally() as tally, limit_linear_algebra():
        reading = read_scores(session, subject, wanted, settings.inputs, scale=settings.score)
        task = make_task(kernel, subject, reading, wanted, dataclasses.replace(settings, bands=None))
        found = weigh_groups(task, reading, fill, groups, settings, kernel)
    shared = {"bands": ",".join(group.name for group in groups), "band_baseline": baseline, "n_samples": n_samples}
    run = BandRun(task, reading, subject, groups, found, shared, tuple(tell_baseline(baseline)))
    seconds = time.perf_counter() - started
    return [run.explanation(position, seconds, tally.passes) for position in range(len(wanted))]


def weigh_groups(
    task: Task,
    reading: Reading,
    fill: BandFill,
    groups: Sequence[BandGroup],
    settings: ExplanationSettings,
    kernel: KernelShap,
) -> Importance:
    """Returns what each group contributes to the score of every target of a task."""

    def score(images: NDArray[np.float32]) -> NDArray[np.float64]:
        found = reading.session.run(images, None, reading.inputs, reading.names)
        return check_finite(measure(task.targets, reading.answer(found)))

    counting = functools.partial(settings.progress or no_progress, TITLE)
    return measure_importance(task, fill, groups, score, counting, kernel)


@dataclasses.dataclass(frozen=True)
class BandRun:
    """What came of one image, and all else that the explanations of its targets need.

    Attributes:
        task: the task: the targets, and the image's scores.
        reading: the model's scores with nothing missing.
        subject: the image.
        groups: the groups.
        found: what they contribute.
        options: the options, by name.
        notes: what the reader of every target's explanation must know.
    """

    task: Task
    reading: Reading
    subject: Subject
    groups: Sequence[BandGroup]
    found: Importance
    options: dict[str, Any]
    notes: tuple[str, ...]

    def explanation(self, position: int, seconds: float, passes: int) -> BandExplanation:
        """Returns the explanation of one target, the ``position``-th of the task's."""
        target, whole = self.task.targets[position], self.reading.whole
        own = self.found.notes[position] if self.found.notes else ()
        metadata: Metadata = self.reading.session.metadata
        picture = self.subject.original
        return BandExplanation(
            groups=tuple(group.name for group in self.groups),
            bands=tuple(group.bands for group in self.groups),
            shapley=self.found.shapley[position],
            errors=self.found.errors[position],
            left_out=self.found.left_out[position],
            score=float(self.task.base[position]),
            nothing=float(self.found.nothing[position]),
            score_name=target.score_name(whole),
            question=target,
            is_exact=self.found.is_exact,
            settings={
                **self.options,
                "n_samples": self.found.n_samples,
                **describe_shared_settings(self.task, self.reading),
            },
            notes=(
                *self.subject.notes,
                *self.notes,
                *own,
                *target.notes(whole),
                *target.precision_notes(whole),
            ),
            seconds=seconds,
            forward_passes=passes,
            model=describe_origin(metadata),
            image=picture if isinstance(picture, Image.Image) else None,
        )
