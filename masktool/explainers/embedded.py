"""Explanations by a file that explains itself: the map comes with the scores, from one run of the file.

The method, its options and the seed were chosen when the file was exported, and stand in its metadata; so does whether
it has an input ``target``. What the method is called and what its values mean is what it is in Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import EXPLAIN_INPUT, SALIENCY_MAP, SEGMENT_ATTRIBUTIONS, SEGMENTS_INPUT, TARGET_INPUT, Metadata
from masktool.errors import MasktoolError
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import METHODS, Attribution, Method, build_method
from masktool.explainers.subject import Subject
from masktool.explainers.target import TOP, Target
from masktool.explainers.targets.class_target import ClassTarget, resolve_target
from masktool.explainers.task import Task
from masktool.messages import call, parameter
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession

LABEL_MAP = "feature_mask"
"""What the settings call segments that the user gave, which stand in no metadata."""


def embedded_method(metadata: Metadata, defaults: Mapping[str, Any] | None = None) -> Method:
    """Returns the method by which a file explains itself, with the options of its export.

    Args:
        metadata: the metadata of the file.
        defaults: options whose default in files is another than in Python, by name, for a file that was written before
            they were recorded; None takes those of Python.

    Raises:
        MasktoolError: this version of masktool has no such method, or the options are not all in the metadata.
    """
    assert metadata.explanation is not None
    name, recorded = metadata.explanation["method"], metadata.explanation["settings"]
    known = {field.name for field in dataclasses.fields(METHODS.find(name))}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in recorded.items()}
    return build_method(name, {**(defaults or {}), **{key: options[key] for key in options if key in known}})


def check_embedded(session: MaskedSession, method: Method, settings: ExplanationSettings) -> None:
    """Raises a MasktoolError where a file that explains itself is asked for what it does not give."""
    metadata = session.metadata
    assert metadata.explanation is not None
    with_mask = "export one that takes a mask: " + call("export", metadata.source, "NEW.onnx")
    if method.name != metadata.explanation["method"]:
        raise MasktoolError(
            "the file explains itself, by one method only",
            where=session.path,
            expected=metadata.explanation["method"],
            got=method.name,
            fix="for other methods " + with_mask,
        )
    if settings.output is not None:
        raise MasktoolError(
            "the map in the file is of a class, and of no other output",
            where=session.path,
            got=settings.output,
            fix="leave the output out, or " + with_mask,
        )
    if settings.score == "log-odds":
        raise MasktoolError("the map in the file is of no log-odds", where=session.path, fix="for these " + with_mask)
    if own := sorted({TARGET_INPUT, EXPLAIN_INPUT} & set(settings.inputs or ())):
        raise MasktoolError(
            "inputs that the explanation itself feeds",
            where=", ".join(own),
            fix="leave them out; " + parameter("target") + " chooses the class",
        )


def ask_file(
    session: MaskedSession, subject: Subject, target: Target, settings: ExplanationSettings
) -> ExplanationSettings:
    """Returns the settings of one run of a file that explains itself: its own seed and chunk, and the class to explain.

    Raises:
        TargetError: there is no such class.
        MasktoolError: the target is no class.
    """
    explanation = session.metadata.explanation
    assert explanation is not None
    if not isinstance(target, ClassTarget):
        raise MasktoolError(
            "the map in the file is of one class",
            where=session.path,
            got=target.name,
            fix="explain a class, or export one that takes a mask: "
            + call("export", session.metadata.source, "NEW.onnx"),
        )
    own = dataclasses.replace(settings, seed=explanation["seed"], perturbations_per_eval=explanation["chunk"])
    if target.which in (None, TOP) or not takes_target(session):
        return own
    count = session.n_classes
    if count is None:
        count = len(session.scores(subject.fed, inputs=settings.inputs)[0])
    index = resolve_target(target.which, np.zeros(count), session.metadata.labels)
    return dataclasses.replace(own, inputs={**(settings.inputs or {}), TARGET_INPUT: [index]})


def takes_target(session: MaskedSession) -> bool:
    """Tells whether a file that explains itself has an input for the class to explain."""
    return any(each.name == TARGET_INPUT for each in session.other_inputs)


def read_attribution(session: MaskedSession, task: Task, inputs: Inputs) -> Attribution:
    """Returns what a file gave beside the scores as a method's answer, for the one target of a task.

    Args:
        session: the session of the file.
        task: the task, with what the file gave.
        inputs: the values of the file's inputs other than the image, by name.

    Raises:
        MasktoolError: the target is not the class that was explained, or the map is none.
    """
    metadata = session.metadata
    assert metadata.explanation is not None
    check_explained_class(session, task)
    saliency = check_finite_map(task.outputs[SALIENCY_MAP], task.image_size)
    figures = {name: float(value) for name, value in task.outputs.items() if value.ndim == 0}
    if "attributions_error" in figures:
        figures["attributions_range"] = float(np.ptp(saliency))
    settings = metadata.explanation["settings"]
    return Attribution(saliency, settings, quality=(figures,), segments=find_segments(metadata, task, inputs))


def find_segments(metadata: Metadata, task: Task, inputs: Inputs) -> NDArray[np.int32] | None:
    """Returns the segments that the file worked on, (h, w); None where it worked on none, or does not say which."""
    assert metadata.explanation is not None
    if SEGMENT_ATTRIBUTIONS not in task.outputs:
        return None
    if SEGMENTS_INPUT in inputs:
        return np.asarray(inputs[SEGMENTS_INPUT], np.int32)
    if metadata.explanation["settings"].get("segments") == LABEL_MAP:
        return None
    return embedded_method(metadata).cut(task)


def check_explained_class(session: MaskedSession, task: Task) -> None:
    """Raises a MasktoolError where a file without an input for the target explained another class than was asked."""
    (target,), top = task.targets, int(task.scores.argmax())
    if takes_target(session) or target.index == top:
        return
    metadata = session.metadata
    assert metadata.explanation is not None
    again = call("export_explained", metadata.source, "NEW.onnx", metadata.explanation["method"], target="optional")
    raise MasktoolError(
        "the file explains the class with the highest score only",
        where=session.path,
        expected=f"class {top}",
        got=f"class {target.index}",
        fix="leave the target out, or export one that takes a target: " + again,
    )


def check_finite_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns a map (1, h, w), or raises a MasktoolError where it has another shape or is not finite."""
    if values.shape == (1, *size) and np.isfinite(values).all():
        return values
    raise MasktoolError(
        "the map in the file is not one value for each pixel",
        where=f"output {SALIENCY_MAP!r}",
        expected=f"finite values (1, {size[0]}, {size[1]})",
        got=f"{values.shape}" + ("" if np.isfinite(values).all() else " with NaN or infinity"),
    )
