"""Runs a method on one image: prepare, score, attribute, bring the map back to the image's own pixels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.explanation import Explanation
from masktool.explainers.method import Attribution, Method, build_method
from masktool.explainers.reading import Reading, Scale, describe_input, read_scores
from masktool.explainers.subject import ImageLike, Subject, make_subject, read_subject
from masktool.explainers.targets import TOP, Place, Target
from masktool.explainers.task import Differentiable, Evaluate, Masks, Predict, ScoredMasks, Task
from masktool.option_checks import check_choice
from masktool.progress import Counting, Progress, no_progress
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession, load

SessionLike = MaskedSession | str | os.PathLike[str]

PROVENANCE = ("source", "source_sha256", "masking", "parity", "tool_version")
"""Metadata of the exported file that go into every explanation."""


def explain(
    session: SessionLike,
    image: ImageLike,
    method: str = "lime",
    target: Target = None,
    *,
    output: str | None = None,
    score: Scale = "probability",
    inputs: Inputs | None = None,
    input_size: tuple[int, int] | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Says which parts of a photograph a model's score for one class relied on.

    Args:
        session: from :func:`masktool.load`, or the path of an exported file.
        image: a photograph: a Pillow image, a path, or (H, W, 3) uint8 RGB. Or the model's input as it is, for networks
            that look at something else: any other array (C, H, W) or (H, W, C), or the path of a ``.npy`` file.
        method: ``lime``, ``occlusion``, ``rise`` or another registered one.
        target: None or ``"top"`` for the class with the highest score, an index, or a label; with ``output``, indices
            into all its axes but the batch, such as ``(5, 0)``, or ``"top"`` for its largest value.
        output: name of an output to explain one value of, as the model gives it; None explains a class.
        score: of a class: its ``probability``, or its ``log-odds`` log p - log(1 - p), which go on where p is rounded
            to 0 or 1. Not for methods that differentiate, which have their own ``loss``.
        inputs: by name, what the model asks for besides the image and the mask.
        input_size: (height, width) for a model that leaves them open; None takes its preprocessing's.
        n_samples: number of masks; by default the method's own.
        seed: of every random choice.
        perturbations_per_eval: masks per forward pass; chosen from the input's size by default.
        progress: is called with a description and the number of masks (for methods that ask for gradients: of images
            or steps), and returns a context manager that yields a function to call with the number just done and, in
            methods that iterate, a note such as the loss.
        **options: the method's own, see ``masktool.explainers.methods``.

    Returns:
        The attributions in the photograph's pixels, in units of the score, with all that is needed to repeat the run.

    Raises:
        MasktoolError: bad image, model, target or option.
    """
    if isinstance(target, list):
        raise MasktoolError("explain takes one target", got=target, fix="call masktool.explainers.explain_targets")
    (explanation,) = explain_targets(
        session,
        image,
        [target],
        method,
        output=output,
        score=score,
        inputs=inputs,
        input_size=input_size,
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
    output: str | None = None,
    score: Scale = "probability",
    inputs: Inputs | None = None,
    input_size: tuple[int, int] | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    perturbations_per_eval: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Explanation]:
    """Like :func:`explain` for several targets, which share the forward passes; returns one explanation per target."""
    method_instance = build_method(method, options, n_samples)
    check_numbers(seed, perturbations_per_eval)
    image = read_subject(image)
    with contextlib.ExitStack() as stack:
        if not isinstance(session, MaskedSession):
            session = stack.enter_context(load(session))
        check_file(session, method_instance, output)
        check_scale(score, method_instance, output)
        return run_method(
            session,
            make_subject(image, session, input_size),
            targets,
            method_instance,
            output=output,
            score=score,
            inputs=inputs,
            seed=seed,
            perturbations_per_eval=perturbations_per_eval,
            progress=progress,
        )


def check_numbers(seed: int, perturbations_per_eval: int | None) -> None:
    """Raises MasktoolError for a seed or a batch size that is none."""
    if perturbations_per_eval is not None and perturbations_per_eval < 1:
        raise MasktoolError("batch size out of range", expected="at least 1", got=perturbations_per_eval)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise MasktoolError("seed out of range", expected="a whole number from 0", got=repr(seed))


def make_task(
    method: Method,
    subject: Subject,
    reading: Reading,
    targets: Sequence[Target],
    seed: int,
    perturbations_per_eval: int | None,
    progress: Progress | None,
) -> Task:
    """Returns what a method is to do on one image for some targets.

    Raises:
        MasktoolError: a target that there is not, or scores that are no numbers.
    """
    session, scores = reading.session, reading.values.reshape(-1)
    indices = [reading.flat_index(reading.resolve(target)) for target in targets]
    check_finite(scores if reading.output is None else scores[indices], subject.prepared.array)
    counting: Counting = functools.partial(progress or no_progress, method.title)
    answer = functools.partial(reading.under_masks, subject.prepared.array)
    return Task(
        subject=subject,
        scores=scores.astype(np.float32, copy=False),
        targets=tuple(indices),
        given=tuple(target not in (None, TOP) for target in targets),
        masking=session.metadata.masking,
        seed=int(seed),
        perturbations_per_eval=session.batch_size(perturbations_per_eval),
        evaluate=make_evaluate(answer, indices, counting),
        predict=lambda masks: check_finite(answer(masks)),
        outputs=reading.others,
        differentiable=Differentiable(session, reading.inputs, counting) if method.needs_gradient else None,
    )


def run_method(
    session: MaskedSession,
    subject: Subject,
    targets: Sequence[Target],
    method: Method,
    *,
    output: str | None,
    inputs: Inputs | None,
    score: Scale = "probability",
    seed: int,
    perturbations_per_eval: int | None,
    progress: Progress | None,
) -> list[Explanation]:
    """Scores the image, lets the method attribute the targets' scores, and wraps the answers up."""
    started = time.perf_counter()
    with session.counter.tally() as tally:
        reading = read_scores(session, subject, output, inputs, tuple(method.outputs), score)
        places = [reading.resolve(target) for target in targets]
        task = make_task(method, subject, reading, targets, seed, perturbations_per_eval, progress)
        attribution = method.attribute(task)
    run = ExplanationRun(
        session=session,
        subject=subject,
        method=method,
        task=task,
        reading=reading,
        attribution=attribution,
        forward_passes=tally.passes,
    )
    maps = [subject.prepared.to_original(each.astype(np.float32)) for each in attribution.attributions]
    seconds = time.perf_counter() - started
    return [run.explanation(position, place, maps[position], seconds) for position, place in enumerate(places)]


def check_file(session: MaskedSession, method: Method, output: str | None) -> None:
    """Raises a MasktoolError where a method asks for gradients or outputs that the file does not hold."""
    if method.needs_gradient and not session.has_gradient:
        raise MasktoolError(
            f"{method.title} needs gradients, which the file does not hold",
            where=session.path,
            fix=f"add them: masktool export {session.path} -o NEW.onnx --gradient logit",
        )
    for name, command in method.outputs.items():
        if name not in session.output_names:
            raise MasktoolError(
                f"{method.title} needs an output that the file does not have",
                where=session.path,
                expected=name,
                got=session.describe_outputs(),
                fix=f"make a file that has it: {command}",
            )
    if output is not None and (method.needs_gradient or method.outputs):
        raise MasktoolError(
            f"{method.title} explains classes only", where=f"output {output!r}", fix="leave the output out"
        )


def check_scale(score: Scale, method: Method, output: str | None) -> None:
    """Raises a MasktoolError for a scale that there is not, or for one of classes where none are scored."""
    check_choice("score", score, get_args(Scale))
    if score == "log-odds" and (output is not None or method.needs_gradient):
        where = f"output {output!r}" if output is not None else method.title
        fix = "leave the score out" + ("" if output is not None else "; the method's own option loss chooses")
        raise MasktoolError("log-odds are of classes' scores under masks", where=where, fix=fix)


def check_finite(
    scores: NDArray[np.floating[Any]], image: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.floating[Any]]:
    """Returns the scores, or raises a MasktoolError: a map made from NaN would be NaN everywhere.

    Args:
        scores: of a model.
        image: that they are of, which may be what is not finite.
    """
    if np.isfinite(scores).all():
        return scores
    if image is not None and not np.isfinite(image).all():
        n_wrong = int(np.count_nonzero(~np.isfinite(image)))
        raise MasktoolError(
            "the image holds NaN or infinity, and the model's scores are not finite for it",
            where="image",
            got=f"{n_wrong} of {image.size} numbers that are not finite",
            fix="put numbers in their place",
        )
    raise MasktoolError("the model's scores are not finite", expected="numbers", got="NaN or infinity")


def make_evaluate(predict: Predict, indices: Sequence[int], progress: Counting) -> Evaluate:
    """Returns the function that runs masks through the model and keeps the targets' scores.

    Args:
        predict: runs one batch of masks.
        indices: of the targets, among one image's scores laid out flat.
        progress: starts to count up to a number of masks.
    """

    def evaluate(batches: Iterable[Masks], total: int) -> Iterator[ScoredMasks]:
        with progress(total) as advance:
            for masks in batches:
                chosen = check_finite(predict(masks)[:, list(indices)])
                yield ScoredMasks(masks, chosen.astype(np.float64))
                advance(len(masks))

    return evaluate


@dataclasses.dataclass(frozen=True)
class ExplanationRun:
    """What all targets of one run share."""

    session: MaskedSession
    subject: Subject
    method: Method
    task: Task
    reading: Reading
    attribution: Attribution
    forward_passes: int

    def explanation(
        self, position: int, target: int | Place, attributions: NDArray[np.float32], seconds: float
    ) -> Explanation:
        """Returns the explanation of one target, the ``position``-th of the run."""
        metadata, reading = self.session.metadata, self.reading
        return Explanation(
            attributions=attributions,
            model_attributions=self.attribution.attributions[position].astype(np.float32),
            segments=self.attribution.segments,
            target=target,
            label=reading.label(target),
            scores=reading.ranked(target),
            score_name=reading.score_name,
            method=self.method.name,
            title=self.method.title,
            meaning=self.method.meaning.format(score=reading.score_name),
            signed=self.method.signed,
            settings={**self.attribution.settings, **self.settings()},
            quality=self.attribution.quality[position],
            capped=self.method.capped,
            notes=(
                *self.subject.notes,
                *self.method_notes(position),
                *self.shared_notes(position, target),
            ),
            seconds=seconds,
            forward_passes=self.forward_passes,
            model={name: getattr(metadata, name) for name in PROVENANCE},
            image=self.subject.original,
            output=reading.output,
            crop_box=self.subject.prepared.crop_box,
        )

    def method_notes(self, position: int) -> tuple[str, ...]:
        """Returns what the method says of one target's map."""
        return self.attribution.notes[position] if self.attribution.notes else ()

    def shared_notes(self, position: int, target: int | Place) -> Iterator[str]:
        """Yields what the reader of one target's map must know, whatever the method."""
        yield from self.reading.notes(self.task.given[position])
        of_scores = not self.method.needs_gradient and not self.method.outputs
        if of_scores:
            yield from self.reading.note_saturation(target)
        values = self.attribution.attributions[position]
        if values.size > 1 and values.min() == values.max():
            yield "the map is the same everywhere: it does not tell one place from another"
        elif of_scores and self.reading.is_rounding(target, values):
            yield "the map's values differ by no more than the rounding of the score in float32: it may be noise"

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result besides the method's own options."""
        settings: dict[str, Any] = {
            "seed": self.task.seed,
            "perturbations_per_eval": self.task.perturbations_per_eval,
            "providers": self.session.providers,
            "threads": self.session.threads,
        }
        if None in self.session.spatial_shape:
            settings["input_size"] = list(self.task.size)
        if self.reading.scale != "probability":
            settings["score"] = self.reading.scale
        if self.reading.inputs:
            settings["inputs"] = {name: describe_input(value) for name, value in self.reading.inputs.items()}
        return settings
