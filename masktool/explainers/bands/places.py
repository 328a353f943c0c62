"""Where, for a group of bands: what a method hides is hidden in these bands alone."""

from __future__ import annotations

from collections.abc import Callable

from masktool.errors import MasktoolError
from masktool.explainers.bands.filling import make_fill
from masktool.explainers.bands.groups import HiddenBands, choose_groups, only_group
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.mask_design import Masks
from masktool.explainers.method import Method
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.reading import Reading
from masktool.explainers.subject import Subject
from masktool.layouts import CHANNEL_AXIS
from masktool.messages import call, parameter
from masktool.runtime.session import MaskedSession


def find_hidden_bands(
    subject: Subject, method: Method, session: MaskedSession, settings: ExplanationSettings
) -> HiddenBands | None:
    """Returns the bands in which a method is to hide places; None where it hides them in all, as usual.

    Raises:
        MasktoolError: several groups were given, a band is outside the input, or the method hides nothing.
    """
    if settings.groups is None:
        return None
    check_bands_can_miss(session)
    group = only_group(choose_groups(settings.groups, subject.prepared.array.shape[CHANNEL_AXIS[session.layout]]))
    refuse_without_masks(method, group.name)
    return HiddenBands(group, settings.band_baseline)  # type: ignore[arg-type]  # as __post_init__ left it


def refuse_without_masks(method: Method | type[Method], bands: str) -> None:
    """Raises a MasktoolError for a method that hides nothing of the input by masks; ``bands`` is what was asked for."""
    if method.needs_gradient or method.needs_head or method.needs_feature_map or method.outputs:
        raise MasktoolError(
            f"{method.title} hides no places, of which it could be said in which bands",
            where=parameter("bands", bands),
            fix="take a method that does, such as occlusion, lime or rise",
        )


def answer_in_bands(reading: Reading, subject: Subject, hidden: HiddenBands) -> Callable[[Masks], ModelOutputs]:
    """Returns the function that gives the outputs of an image under masks that act on some bands alone."""
    session = reading.session
    fill = make_fill(subject.prepared.array, session.layout, hidden.baseline)

    def answer(masks: Masks) -> ModelOutputs:
        images = fill.hide(masks, hidden.group)
        return reading.answer(session.run(images, None, reading.inputs, reading.names))

    return answer


def check_bands_can_miss(session: MaskedSession) -> None:
    """Raises a MasktoolError for a file whose input cannot be changed band by band."""
    if not session.metadata.takes_mask:
        raise MasktoolError(
            "the file explains itself, and by its own method only",
            where=session.path,
            fix="for bands export one that takes a mask: " + call("export", session.metadata.source, "NEW.onnx"),
        )
