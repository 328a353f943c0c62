"""From what a user gives to a target: words, the output that is named, and what else it is put together with."""

from __future__ import annotations

from masktool.errors import MasktoolError
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.target import TARGETS, Target, TargetLike
from masktool.explainers.targets.class_sum import ClassSum
from masktool.explainers.targets.contrast import Contrast
from masktool.messages import parameter


def choose_target(target: TargetLike, settings: ExplanationSettings) -> Target:
    """Returns the target that is meant by what was given for one image, and by the settings for all."""
    found = read_target_words(target, settings.output)
    if settings.sum_with:
        found = ClassSum([found, *(read_target_words(each, settings.output) for each in settings.sum_with)])
    if settings.against is not None:
        found = Contrast(found, read_target_words(settings.against, settings.output))
    return found


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
