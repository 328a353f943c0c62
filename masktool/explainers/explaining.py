"""Runs a method on images: prepares and scores them, attributes, and brings the maps back to the images' own pixels."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import DEFAULT_SIZE, FEATURE_MAP, FEATURE_MAP_OUTPUTS
from masktool.errors import MasktoolError
from masktool.explainers.bands.false_colour import show_bands
from masktool.explainers.bands.places import answer_in_bands, find_hidden_bands
from masktool.explainers.budgets import bound_passes, fit_budget
from masktool.explainers.embedded import ask_file, check_embedded, read_attribution
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_run import Cost, ExplanationRun, maps_of
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.feature_maps import without_activations
from masktool.explainers.image_inputs import prepare_inputs
from masktool.explainers.incremental import IncrementalEvaluation, WindowGraphs
from masktool.explainers.mask_design import MaskDesign, Masks, MasksInMemory
from masktool.explainers.method import METHODS, Method
from masktool.explainers.model_outputs import ModelOutputs, Scale
from masktool.explainers.on_device import DeviceEvaluation, DeviceGraphs, DifferentiableOnDevice
from masktool.explainers.reading import Reading, check_finite, read_scores
from masktool.explainers.subject import ImageLike, Subject, make_subject, read_subject
from masktool.explainers.target import SettledTarget, Target, TargetLike, explains_classes, measure
from masktool.explainers.target_choice import choose_target, find_only_value
from masktool.explainers.target_gradient import check_differentiable
from masktool.explainers.targets.class_target import SettledClass
from masktool.explainers.task import Differentiable, Evaluate, ScoredMasks, Task, TaskHead
from masktool.exported_files import find_head_file
from masktool.layouts import refuse_unless_images
from masktool.progress import Counting, no_progress
from masktool.runtime.batching import FASTEST
from masktool.runtime.heads import choose_places, open_head
from masktool.runtime.measured_batch import measure_batch_size
from masktool.runtime.session import MaskedSession

GraphsBeside = DeviceGraphs | WindowGraphs
"""Writers of models that run beside a session's own, on its device or on the CPU."""


def explain_all(
    session: MaskedSession,
    images: Sequence[ImageLike],
    targets: Sequence[Sequence[TargetLike]],
    method: Method,
    settings: ExplanationSettings,
    graphs: GraphsBeside | None = None,
) -> list[list[Explanation]]:
    """Explains every target of every image; a single image goes the same way, as a list of one.

    Args:
        session: the open model.
        images: the images, each as for :func:`masktool.explain`.
        targets: the targets of each image, each as for :func:`masktool.explain`; those of one image share the passes.
        method: the method that explains.
        settings: the settings that hold for every image, whatever the method.
        graphs: writers of the models that run beside the session's own; None makes all masks in memory and runs the
            masked network alone.

    Returns:
        For each image, one explanation per target.

    Raises:
        MasktoolError: an image, the model, a target or an option cannot be used.
    """
    if not method.draws():
        settings.stopping.refuse_for(method.title)
    pictures = [read_subject(image) for image in images]
    inputs = prepare_inputs(session, settings.inputs, settings.input_size)
    settings = dataclasses.replace(settings, inputs=inputs)
    if session.metadata.takes_mask:
        check_offers(session, method)
        check_scale(settings.score, method)
    else:
        check_embedded(session, method, settings)
    chosen = [
        choose_subject(picture, wanted, session, settings) for picture, wanted in zip(pictures, targets, strict=True)
    ]
    if not session.metadata.takes_mask:
        return [
            [explain_by_file(session, subject, target, method, settings) for target in wanted]
            for subject, wanted in chosen
        ]
    chosen = [
        (subject, [find_only_value(each, session).look_up(session, subject, settings.inputs) for each in wanted])
        for subject, wanted in chosen
    ]
    for subject, _ in chosen:
        settle_batch(session, subject, settings)  # what is measured is no part of any explanation's cost
    batches = [chosen] if method.in_one_batch else [[each] for each in chosen]
    return [found for batch in batches for found in explain_batch(session, batch, method, settings, graphs)]


def choose_subject(
    picture: Image.Image | NDArray[Any],
    wanted: Sequence[TargetLike],
    session: MaskedSession,
    settings: ExplanationSettings,
) -> tuple[Subject, list[Target]]:
    """Returns an image as the model takes it, and its targets as they are of the model."""
    subject = make_subject(picture, session, settings.input_size)
    if settings.rgb is not None or settings.bands is not None:
        subject = show_bands(subject, session.layout, settings.rgb)
    size = subject.prepared.size
    return subject, [
        choose_target(each, settings).fit(session.output_shapes, size, session.metadata) for each in wanted
    ]


def explain_by_file(
    session: MaskedSession, subject: Subject, target: Target, method: Method, settings: ExplanationSettings
) -> Explanation:
    """Explains one target of one image by a file that explains itself, in one run."""
    asked = ask_file(session, subject, target, settings)
    ((explanation,),) = explain_batch(session, [(subject, [target])], method, asked)
    return explanation


def explain_batch(
    session: MaskedSession,
    chosen: Sequence[tuple[Subject, Sequence[Target]]],
    method: Method,
    settings: ExplanationSettings,
    graphs: GraphsBeside | None = None,
) -> list[list[Explanation]]:
    """Explains the images of one batch: scores them, attributes the targets' scores, and returns the explanations."""
    started = time.perf_counter()
    beside = session.explanation_outputs or outputs_beside(session, method)
    with session.counter.tally() as tally, limit_linear_algebra():
        readings = [
            read_scores(session, subject, targets, settings.inputs, beside, settings.score)
            for subject, targets in chosen
        ]
        tasks = [
            make_task(method, subject, reading, targets, settings, graphs)
            for (subject, targets), reading in zip(chosen, readings, strict=True)
        ]
        if session.metadata.takes_mask:
            tasks = [bound_passes(method, task) for task in tasks]
            method = fit_budget(method, max(tasks, key=lambda task: len(task.targets)))
            attributions = method.attribute_together(tasks)
        else:
            attributions = [
                read_attribution(session, task, reading.inputs) for task, reading in zip(tasks, readings, strict=True)
            ]
    runs = [
        ExplanationRun(method, task, reading, attribution, maps_of(task, attribution))
        for task, reading, attribution in zip(tasks, readings, attributions, strict=True)
    ]
    share = Cost((time.perf_counter() - started) / len(chosen), tally.passes // len(chosen))
    return [run.explanations(share) for run in runs]


def outputs_beside(session: MaskedSession, method: Method | type[Method]) -> list[str]:
    """Returns the names of the outputs that a method reads besides the scores, in the same pass."""
    count = len(session.metadata.feature_maps) if method.needs_feature_map else 0
    return list(dict.fromkeys([*method.outputs, *FEATURE_MAP_OUTPUTS[:count]]))


def limit_linear_algebra() -> AbstractContextManager[object]:
    """Returns a context in which numpy's and scipy's linear algebra has one thread; ONNX Runtime keeps its own.

    Several wait for each other longer than matrices of a hundred rows take, and their number would decide the last
    bits. The limit is the process's; of threads that overlap, the first one's holds (threadpoolctl sees to that).
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def make_task(
    method: Method,
    subject: Subject,
    reading: Reading,
    targets: Sequence[Target],
    settings: ExplanationSettings,
    graphs: GraphsBeside | None = None,
) -> Task:
    """Returns the task of a method: one image and the targets to explain.

    Raises:
        MasktoolError: there is no such target, or the scores are not finite.
    """
    session = reading.session
    settled = tuple(target.settle(reading.whole) for target in targets)
    for each in settled:
        refuse_target(method, each, session)
    base = measure(settled, reading.whole)[0]
    for numbers in (reading.class_scores, base):
        check_finite(numbers, subject.prepared.array)
    counting: Counting = functools.partial(settings.progress or no_progress, method.title)
    hidden = find_hidden_bands(subject, method, session, settings)
    answer: Callable[[Masks], ModelOutputs] = functools.partial(reading.under_masks, subject.prepared.array)
    if hidden is not None:
        answer, graphs = answer_in_bands(reading, subject, hidden), None
    evaluate, differentiable = (
        make_evaluate(answer, settled, counting),
        Differentiable(session, reading.inputs, counting),
    )
    is_image = len(subject.prepared.size) == len(DEFAULT_SIZE)
    if not is_image:  # graphs beside a session are written for images
        graphs = None
    if isinstance(graphs, WindowGraphs):
        evaluate = IncrementalEvaluation(reading, subject.prepared.array, settled, counting, graphs, evaluate)
    elif graphs is not None and session.device is not None:
        evaluate = DeviceEvaluation(reading, subject.prepared.array, settled, counting, graphs, in_memory=evaluate)
        differentiable = DifferentiableOnDevice(session, reading.inputs, counting, graphs)
    return Task(
        subject=subject,
        scores=reading.class_scores,
        targets=settled,
        base=base,
        masking=session.metadata.masking if hidden is None else "fill",
        seed=int(settings.seed),
        perturbations_per_eval=settle_batch(session, subject, settings),
        evaluate=evaluate,
        predict=lambda masks: check_finite(answer(masks).class_scores),
        outputs=reading.others,
        stopping=settings.stopping,
        batch_measured=settings.perturbations_per_eval == FASTEST,
        differentiable=differentiable if method.needs_gradient else None,
        head=make_head(reading, settled, counting, settings) if method.needs_head else None,
        feature_maps=read_feature_maps(reading) if method.needs_feature_map else {},
        hidden_bands=hidden,
    )


def make_head(
    reading: Reading, targets: Sequence[SettledTarget], counting: Counting, settings: ExplanationSettings
) -> TaskHead:
    """Returns the layers behind the feature map that came with an image's scores, ready to be run under masks.

    Raises:
        MasktoolError: the head is missing, damaged or of another export.
    """
    head = open_head(reading.session)
    taken = {each.name for each in head.other_inputs}
    inputs = {name: value for name, value in reading.inputs.items() if name in taken}
    names = (str(head.metadata.class_output),)
    whole = dataclasses.replace(reading.whole, metadata=head.metadata)
    behind = dataclasses.replace(reading, session=head, names=names, inputs=inputs, whole=whole, others={})
    features = reading.others[FEATURE_MAP][None].astype(head.image_type)
    requested = None if settings.perturbations_per_eval == FASTEST else settings.perturbations_per_eval
    height, width = features.shape[2:]
    return TaskHead(
        feature_map=str(head.metadata.behind),
        places=(height, width),
        perturbations_per_eval=choose_places(head, requested),
        evaluate=make_evaluate(functools.partial(behind.under_masks, features), targets, counting),
    )


def read_feature_maps(reading: Reading) -> dict[str, NDArray[np.float32]]:
    """Returns the feature maps (c, h, w) that came with an image's scores, by their names in the network."""
    names = reading.session.metadata.feature_maps
    return {name: reading.others[output] for name, output in zip(names, FEATURE_MAP_OUTPUTS, strict=False)}


def settle_batch(session: MaskedSession, subject: Subject, settings: ExplanationSettings) -> int:
    """Returns the number of masks in one forward pass."""
    if settings.perturbations_per_eval == FASTEST:
        return measure_batch_size(session, subject.prepared.array, settings.inputs)[-1].size
    return session.batch_size(settings.perturbations_per_eval)


def check_offers(session: MaskedSession, method: Method) -> None:
    """Raises a MasktoolError where a method asks for what the file does not take or hold."""
    if not method.any_rank:
        able = [name for name in METHODS if METHODS[name].any_rank]
        refuse_unless_images(session.layout, method.title, f"take one of {', '.join(able)}")
    if method.needs_head:
        find_head_file(session.path, session.metadata)
    if method.needs_feature_map and not session.metadata.feature_maps:
        raise without_activations(method.title, session.path, session.metadata.source)
    for name, command in method.outputs.items():
        if not session.has_output(name):
            raise MasktoolError(
                f"{method.title} needs an output that the file does not have",
                where=session.path,
                expected=name,
                got=session.describe_outputs(),
                fix="make a file that has it: " + command,
            )


def refuse_target(method: Method, target: SettledTarget, session: MaskedSession) -> None:
    """Raises a MasktoolError where a method cannot explain a target of a session's file."""
    if method.needs_gradient and session.metadata.takes_mask:
        check_differentiable(method.title, target, session.metadata, session.path)
    if (method.outputs or method.needs_feature_map) and target.outputs != (None,):
        raise explains_classes(method.title, target)
    if method.takes_no_target and not isinstance(target, SettledClass):
        raise MasktoolError(
            f"{method.title} has one map, whichever target is named",
            where=f"target {target.name}",
            fix="leave the target out",
        )


def check_scale(score: Scale, method: Method) -> None:
    """Raises a MasktoolError for log-odds where the method scores no classes under masks."""
    if score == "log-odds" and method.needs_gradient:
        raise MasktoolError(
            "log-odds are of classes' scores under masks", where=method.title, fix="leave the score out"
        )


def make_evaluate(
    answer: Callable[[Masks], ModelOutputs], targets: Sequence[SettledTarget], progress: Counting
) -> Evaluate:
    """Returns the function that runs masks through the model and keeps the targets' scores.

    Args:
        answer: function that returns the outputs of one image under masks (M, 1, h, w).
        targets: the targets.
        progress: function that starts to count up to a number of masks.
    """

    def evaluate(batches: Iterable[Any], total: int, design: MaskDesign | None = None) -> Iterator[ScoredMasks]:
        with progress(total) as advance:
            for masks in batches if design is None else map(design.expand, batches):
                yield ScoredMasks(MasksInMemory(masks), check_finite(measure(targets, answer(masks))))
                advance(len(masks))

    return evaluate
