"""From what a user gives to a target: words, the output that is named, and what else it is put together with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from masktool.errors import MasktoolError
from masktool.explainers.detector import Detector
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import Method
from masktool.explainers.regions import RegionLike
from masktool.explainers.target import TARGETS, Target, TargetLike
from masktool.explainers.targets.class_sum import ClassSum
from masktool.explainers.targets.class_target import ClassTarget
from masktool.explainers.targets.contrast import Contrast
from masktool.explainers.targets.detection import Detection
from masktool.explainers.targets.output_region import OutputRegion
from masktool.explainers.targets.output_slice import OutputSlice
from masktool.explainers.targets.output_value import OutputValue
from masktool.explainers.targets.similarity import Similarity
from masktool.messages import Placeholder, join, parameter
from masktool.runtime.session import MaskedSession

OF_DETECTIONS = {
    "detector": "the kind of a detector is for detections",
    "least_score": "the least score of a detection is for detections",
}
"""Settings of detections, and why they say nothing of any other target."""


def choose_target(target: TargetLike, settings: ExplanationSettings) -> Target:
    """Returns the target that is meant by what was given for one image, and by the settings for all."""
    if settings.reference is not None:
        return choose_similarity(target, settings)
    if settings.region is not None:
        return choose_region(target, settings.region, settings)
    found = choose_head(read_target_words(target, settings.output), settings)
    if settings.sum_with:
        found = ClassSum([found, *(read_target_words(each, settings.output) for each in settings.sum_with)])
    if settings.against is not None:
        against = choose_head(read_target_words(settings.against, settings.output), settings)
        found = Contrast(found, against)
    return found


def refuse_class_methods(
    methods: Iterable[type[Method]], targets: Iterable[TargetLike], settings: ExplanationSettings
) -> None:
    """Raises a MasktoolError, before any model is opened, where a method explains class scores and a target is none.

    Such a method reads what leads to the class scores, a feature map or a head, or a map that was trained with them. A
    model without them would be exported and asked for that in vain. Of gradients the file tells.
    """
    asked = [each for each in methods if each.reads_class_scores() and not each.needs_gradient]
    others = [each for each in targets if asked and not may_be_classes(choose_target(each, settings))]
    if not others:
        return
    named = next((name for name in ("region", "reference") if getattr(settings, name) is not None), None)
    raise MasktoolError(
        f"{asked[0].title} explains classes only, by the layers that lead to their scores",
        where=f"target {others[0]!r}" if named is None else parameter(named),
        fix="take a method of masks, such as rise, occlusion or lime",
    )


def may_be_classes(target: Target) -> bool:
    """Tells whether a target may be of class scores: an output that is named may hold them."""
    return target.outputs == (None,) or isinstance(target, OutputValue | OutputSlice)


def choose_similarity(target: TargetLike, settings: ExplanationSettings) -> Similarity:
    """Returns the similarity to a reference.

    Raises:
        MasktoolError: a target was given besides, or what goes with one.
    """
    assert settings.reference is not None
    besides = {"target": target, "sum_with": settings.sum_with or None, "against": settings.against}
    others = {"region": settings.region, **{name: getattr(settings, name) for name in OF_DETECTIONS}}
    if given := [name for name, value in {**besides, **others}.items() if value is not None]:
        raise MasktoolError(
            "a reference is a target itself",
            where=join(", ", [parameter("reference"), *map(parameter, given)]),
            fix="leave one of them out",
        )
    return Similarity(settings.reference, settings.output)


def find_only_value(target: Target, session: MaskedSession) -> Target:
    """Returns the one number of a model that gives no other, such as a regressor, where no class was named.

    Any other target, and that of any other model, stays as it is.
    """
    if not isinstance(target, ClassTarget) or target.which is not None or session.metadata.class_output is not None:
        return target
    shapes = list(session.output_shapes.items())
    is_only = len(shapes) == 1 and all(length == 1 for length in shapes[0][1][1:])
    return OutputValue(shapes[0][0]) if is_only else target


def choose_region(target: TargetLike, region: RegionLike, settings: ExplanationSettings) -> Target:
    """Returns a class over a region, or against another over the same.

    Raises:
        MasktoolError: a target was given, which says itself what it is of; or classes to be explained as one.
    """
    for each in (target, settings.against):
        if isinstance(each, Target):
            raise MasktoolError(
                "the target says itself what it is of",
                where=parameter("region"),
                got=each.name,
                fix="leave the region out",
            )
    for name, value in settings_of_detections(settings).items():
        raise MasktoolError(OF_DETECTIONS[name], where=parameter(name, value), fix="leave the region out")
    if settings.sum_with:
        raise MasktoolError(
            "a sum is of classes of the picture", where=parameter("region"), fix="leave one of the two out"
        )
    found = OutputRegion(target, region, settings.output)  # type: ignore[arg-type]  # words, as was just checked
    if settings.against is None:
        return found
    other = OutputRegion(settings.against, found.region, settings.output, found.which)  # type: ignore[arg-type]
    return Contrast(found, other)


def settings_of_detections(settings: ExplanationSettings) -> dict[str, Any]:
    """Returns those of the settings that were given for detections alone, by name."""
    return {name: value for name in OF_DETECTIONS if (value := getattr(settings, name)) is not None}


def choose_head(target: Target, settings: ExplanationSettings) -> Target:
    """Returns a target with the kind of head, and the least score of a detection, that were given.

    Raises:
        MasktoolError: one was given, and the target is no detection, or says another itself.
    """
    given = settings_of_detections(settings)
    for name, value in given.items():
        where = parameter(name, value)
        if not isinstance(target, Detection):
            fix = "explain one: " + parameter("target", Placeholder("box:K|'LABEL near X,Y'"))
            raise MasktoolError(OF_DETECTIONS[name], where=where, fix=fix)
        own = getattr(target, name)
        if own not in (None, value):
            got = own.name if isinstance(own, Detector) else own
            raise MasktoolError("the target says another itself", where=where, got=got, fix="leave one of them out")
    return dataclasses.replace(target, **given) if isinstance(target, Detection) else target


def read_target_words(target: TargetLike, output: str | None) -> Target:
    """Returns the target that a user's words mean; one that is a target already as it is.

    Args:
        target: the target, or words for one.
        output: the output that was named; None where none was.

    Raises:
        MasktoolError: a target was given, which names its output itself, and an output besides.
    """
    if isinstance(target, Target):
        if output is not None:
            raise MasktoolError(
                "the target says itself what it is of",
                where=parameter("output", output),
                got=target,
                fix="leave the output out",
            )
        return target
    kinds = sorted(TARGETS.values(), key=lambda kind: kind.is_general)
    return next(found for kind in kinds if (found := kind.from_words(target, output)) is not None)
