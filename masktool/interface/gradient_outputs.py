"""What a model's gradients have to be of, for the targets that are to be explained: class scores, or one output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from masktool.errors import MasktoolError
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.target import Target, TargetLike
from masktool.explainers.target_choice import choose_target, find_only_value
from masktool.interface.models import known_metadata
from masktool.interface.options import ModelLike
from masktool.messages import parameter
from masktool.runtime.gradients import describe_differentiated
from masktool.runtime.session import MaskedSession

OpenPlain = Callable[[], AbstractContextManager[MaskedSession]]
"""Opens the model without gradients."""


def find_gradient_output(
    model: ModelLike | None,
    title: str,
    targets: Iterable[TargetLike],
    settings: ExplanationSettings,
    open_plain: OpenPlain,
) -> str | None:
    """Returns the name of the output that gradients have to be of; None for class scores.

    Of a model whose gradients are settled, or that has none, it is None too: what does not fit is refused later.

    Args:
        model: the model, as for :func:`masktool.load`.
        title: the method that asks for gradients.
        targets: the targets, as for :func:`masktool.explain`.
        settings: the settings that hold for all images.
        open_plain: function that opens the model without gradients, where only its outputs tell which is meant.

    Raises:
        MasktoolError: a target has no gradient, or the targets are of several outputs.
    """
    metadata = known_metadata(model)
    if isinstance(model, MaskedSession) or (metadata and (metadata.has_gradients or not metadata.takes_mask)):
        return None
    chosen = list(dict.fromkeys(choose_target(each, settings) for each in targets))
    for each in chosen:
        if (error := each.refuse_gradient(title)) is not None:
            raise error
    has_no_classes = metadata is not None and metadata.class_output is None
    if has_no_classes or not all(each.names_outputs for each in chosen):
        with open_plain() as session:
            chosen = [fit_to_outputs(each, session) for each in chosen]
    return agree_on_output(title, chosen)


def fit_to_outputs(target: Target, session: MaskedSession) -> Target:
    """Returns a target as it is of a model, whose outputs are known."""
    return find_only_value(target.fit(session.output_shapes, session.known_size or (), session.metadata), session)


def agree_on_output(title: str, targets: Sequence[Target]) -> str | None:
    """Returns the one output that targets are of; None for the class output.

    Raises:
        MasktoolError: they are of several.
    """
    names = list(dict.fromkeys(name for target in targets for name in target.outputs))
    if len(names) > 1:
        raise MasktoolError(
            f"{title} needs gradients of one output, and the targets are of several",
            where=parameter("target"),
            got=", ".join(map(describe_differentiated, names)),
            fix="explain them one by one",
        )
    return names[0] if names else None
