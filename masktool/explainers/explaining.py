"""Runs a method on one photograph: prepare, score, attribute, bring the map back to the photograph's pixels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from masktool.errors import MasktoolError
from masktool.explainers.explanation import Explanation
from masktool.explainers.method import Attribution, Evaluate, Masks, Method, ScoredMasks, Task, build_method
from masktool.explainers.pixels import model_pixels
from masktool.explainers.targets import Target, label_of, rank_scores, resolve_target
from masktool.runtime.images import read_image, to_rgb
from masktool.runtime.preprocessing import PreparedImage, prepare
from masktool.runtime.session import MaskedSession, load

ImageLike = Image.Image | NDArray[np.uint8] | str | os.PathLike[str]
SessionLike = MaskedSession | str | os.PathLike[str]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Such as :func:`masktool.commands.options.progress`."""

PROVENANCE = ("source", "source_sha256", "masking", "parity", "tool_version")
"""Metadata of the exported file that go into every explanation."""


def explain(
    session: SessionLike,
    image: ImageLike,
    method: str = "lime",
    target: Target = None,
    *,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Says which parts of a photograph a model's score for one class relied on.

    Args:
        session: from :func:`masktool.load`, or the path of an exported file.
        image: a Pillow image, a path, or (H, W, 3) uint8 RGB.
        method: ``lime``, ``occlusion``, ``rise`` or another registered one.
        target: None or ``"top"`` for the class with the highest score, an index, or a label.
        n_samples: number of masks; by default the method's own.
        seed: of every random choice.
        perturbations_per_eval: masks per forward pass; chosen from the input's size by default.
        progress: is called with a description and the number of masks, and returns a context manager that yields a
            function to call with the number of masks just done.
        **options: the method's own, see ``masktool.explainers.methods``.

    Returns:
        The attributions in the photograph's pixels, in units of the score, with all that is needed to repeat the run.

    Raises:
        MasktoolError: bad image, model, target or option.
    """
    if isinstance(target, list | tuple):
        raise MasktoolError("explain takes one target", got=target, fix="call masktool.explainers.explain_targets")
    (explanation,) = explain_targets(
        session,
        image,
        [target],
        method,
        n_samples=n_samples,
        seed=seed,
        perturbations_per_eval=perturbations_per_eval,
        progress=progress,
        **options,
    )
    return explanation


def explain_targets(
    session: SessionLike,
    image: ImageLike,
    targets: Sequence[Target],
    method: str = "lime",
    *,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Explanation]:
    """Like :func:`explain` for several targets, which share the forward passes; returns one explanation per target."""
    method_instance = build_method(method, options, n_samples)
    if perturbations_per_eval is not None and perturbations_per_eval < 1:
        raise MasktoolError("batch size out of range", expected="at least 1", got=perturbations_per_eval)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise MasktoolError("seed out of range", expected="a whole number from 0", got=repr(seed))
    photograph = to_photograph(image)
    with contextlib.ExitStack() as stack:
        if not isinstance(session, MaskedSession):
            session = stack.enter_context(load(session))
        return run_method(
            session,
            photograph,
            targets,
            method_instance,
            seed=int(seed),
            perturbations_per_eval=perturbations_per_eval,
            progress=progress,
        )


def to_photograph(image: ImageLike) -> Image.Image:
    """Returns an RGB image, the right way up.

    Raises:
        MasktoolError: the file cannot be read, or the array is not (H, W, 3) uint8.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or array.size == 0:
        raise MasktoolError("not an image", expected="(H, W, 3) uint8 RGB", got=f"{array.shape} {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def run_method(
    session: MaskedSession,
    photograph: Image.Image,
    targets: Sequence[Target],
    method: Method,
    *,
    seed: int,
    perturbations_per_eval: int | None,
    progress: Progress | None,
) -> list[Explanation]:
    """Scores the photograph, lets the method attribute the targets' scores, and wraps the answers up."""
    started, passes = time.perf_counter(), session.forward_passes
    check_classifier(session)
    metadata = session.metadata
    prepared = prepare(photograph, metadata.preprocessing)
    assert metadata.preprocessing is not None  # prepare has refused
    scores = check_finite(session.scores(prepared.array)[0])
    indices = [resolve_target(target, scores, metadata.labels) for target in targets]
    task = Task(
        prepared=prepared,
        pixels=model_pixels(prepared.array, metadata.preprocessing),
        base=scores[indices].astype(np.float64),
        masking=metadata.masking,
        seed=seed,
        perturbations_per_eval=session.batch_size(perturbations_per_eval),
        evaluate=make_evaluate(session, prepared, indices, functools.partial(progress or no_progress, method.title)),
    )
    attribution = method.attribute(task)
    run = Run(
        session=session,
        photograph=photograph,
        method=method,
        task=task,
        scores=scores,
        attribution=attribution,
        forward_passes=session.forward_passes - passes,
    )
    maps = [prepared.to_original(each.astype(np.float32)) for each in attribution.attributions]
    seconds = time.perf_counter() - started
    return [run.explanation(position, index, maps[position], seconds) for position, index in enumerate(indices)]


def check_classifier(session: MaskedSession) -> None:
    """Raises a MasktoolError where the model has no class output."""
    if session.metadata.class_output is None:
        raise MasktoolError(
            "the model has no class output to explain",
            where=session.path,
            expected="one output of shape (N, classes)",
            got=", ".join(session.output_names),
        )


def check_finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the scores, or raises a MasktoolError: a map made from NaN would be NaN everywhere."""
    if not np.isfinite(scores).all():
        raise MasktoolError("the model's scores are not finite", expected="numbers", got="NaN or infinity")
    return scores


def make_evaluate(
    session: MaskedSession,
    prepared: PreparedImage,
    indices: Sequence[int],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> Evaluate:
    """Returns the function that runs masks through the session and keeps the targets' scores.

    Args:
        session: that runs them.
        prepared: the photograph under the masks.
        indices: of the targets.
        progress: starts to count up to a number of masks.
    """

    def evaluate(batches: Iterable[Masks], total: int) -> Iterator[ScoredMasks]:
        waiting: deque[Masks] = deque()

        def remember() -> Iterator[Masks]:
            for masks in batches:
                waiting.append(masks)
                yield masks

        with progress(total) as advance:
            for scores in session.masked_scores(prepared.array, remember()):
                masks = waiting.popleft()
                yield ScoredMasks(masks, check_finite(scores)[:, list(indices)].astype(np.float64))
                advance(len(masks))

    return evaluate


@contextlib.contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG001  # a Progress
    """Shows nothing."""
    yield lambda _: None


@dataclasses.dataclass(frozen=True)
class Run:
    """What all targets of one run share."""

    session: MaskedSession
    photograph: Image.Image
    method: Method
    task: Task
    scores: NDArray[np.float32]
    attribution: Attribution
    forward_passes: int

    def explanation(self, position: int, target: int, attributions: NDArray[np.float32], seconds: float) -> Explanation:
        """Returns the explanation of one target: ``position`` in the run, ``target`` among the classes."""
        metadata = self.session.metadata
        score_name = "score" if metadata.output_kind is None else "probability"
        return Explanation(
            attributions=attributions,
            model_attributions=self.attribution.attributions[position].astype(np.float32),
            segments=self.attribution.segments,
            target=target,
            label=label_of(target, metadata.labels),
            scores=rank_scores(self.scores, target, metadata.labels),
            score_name=score_name,
            method=self.method.name,
            title=self.method.title,
            meaning=self.method.meaning.format(score=score_name),
            signed=self.method.signed,
            settings={
                **self.attribution.settings,
                "seed": self.task.seed,
                "perturbations_per_eval": self.task.perturbations_per_eval,
                "providers": self.session.providers,
                "threads": self.session.threads,
            },
            quality=self.attribution.quality[position],
            seconds=seconds,
            forward_passes=self.forward_passes,
            model={name: getattr(metadata, name) for name in PROVENANCE},
            image=self.photograph,
        )
