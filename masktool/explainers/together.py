"""Explains several photographs in one batch, by methods that learn a mask for each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from masktool.errors import MasktoolError
from masktool.explainers.explaining import ExplanationRun, SessionLike, check_file, check_numbers, make_task
from masktool.explainers.explanation import Explanation
from masktool.explainers.learned_mask import LearnedMask
from masktool.explainers.method import build_method
from masktool.explainers.reading import read_scores
from masktool.explainers.subject import ImageLike, make_subject, read_subject
from masktool.explainers.targets import Target
from masktool.progress import Progress
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession, load


def explain_together(
    session: SessionLike,
    images: Sequence[ImageLike],
    method: str = "neuromask",
    targets: Sequence[Target] | None = None,
    *,
    inputs: Inputs | None = None,
    input_size: tuple[int, int] | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Explanation]:
    """Like :func:`masktool.explain` for several images, whose masks are learned in one batch.

    Every image gets what it would get alone, up to rounding. ``seconds`` and ``forward_passes`` of each are its share
    of the whole.

    Args:
        session: as for ``explain``.
        images: likewise, each.
        method: one that learns a mask: ``neuromask`` or ``extremal``.
        targets: one per image; None takes the class with the highest score of each.
        inputs: as for ``explain``.
        input_size: likewise.
        n_samples: most steps.
        seed: of every image.
        perturbations_per_eval: images per pass.
        progress: as for ``explain``; counts steps.
        **options: the method's own.

    Raises:
        MasktoolError: bad image, model, target, method or option.
    """
    learner = build_method(method, options, n_samples)
    if not isinstance(learner, LearnedMask):
        raise MasktoolError(f"{learner.title} learns no masks", where="method", fix="call explain for each image")
    check_numbers(seed, perturbations_per_eval)
    wanted = [None] * len(images) if targets is None else list(targets)
    if len(wanted) != len(images) or not images:
        raise MasktoolError("targets do not fit the images", expected=f"{len(images)} targets", got=len(wanted))
    with contextlib.ExitStack() as stack:
        if not isinstance(session, MaskedSession):
            session = stack.enter_context(load(session))
        check_file(session, learner, None)
        started = time.perf_counter()
        tally = stack.enter_context(session.counter.tally())
        subjects = [make_subject(read_subject(image), session, input_size) for image in images]
        readings = [read_scores(session, subject, None, inputs) for subject in subjects]
        tasks = [
            make_task(learner, subject, reading, [target], seed, perturbations_per_eval, progress)
            for subject, reading, target in zip(subjects, readings, wanted, strict=True)
        ]
        attributions = learner.attribute_together(tasks)
        share = (time.perf_counter() - started) / len(tasks)
        passes = tally.passes // len(tasks)
        return [
            ExplanationRun(session, subject, learner, task, reading, attribution, passes).explanation(
                0,
                reading.resolve(target),
                subject.prepared.to_original(attribution.attributions[0].astype(np.float32)),
                share,
            )
            for subject, reading, target, task, attribution in zip(
                subjects, readings, wanted, tasks, attributions, strict=True
            )
        ]
