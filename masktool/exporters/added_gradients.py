"""Gradients for a file that was exported without them: :func:`add_gradients_to`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masktool.contract import Loss, Metadata
from masktool.errors import MasktoolError
from masktool.exported_files import name_feature_maps
from masktool.exporters.settings import check_gradient_choice
from masktool.files import check_target
from masktool.messages import call
from masktool.streams import unheard

if TYPE_CHECKING:
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Model, Source

__all__ = ["add_gradients_to"]


@unheard()
def add_gradients_to(
    model: Model | Source,
    path: str | os.PathLike[str],
    *,
    loss: Loss | None = None,
    feature_map: str | Sequence[str] | None = None,
    gradient_output: str | None = None,
) -> Export:
    """Adds gradients to a model that was exported before, and changes nothing else of it.

    The plain network beside a masked one (``plain_branch``) is left out, for gradients are computed in every run.

    Args:
        model: the exported file's path, or the exported model in memory; it stays as it is.
        path: the path of the file to write; the file appears only when everything has succeeded.
        loss: what of the class scores is differentiated by default: ``logit``, ``log-softmax`` or ``softmax`` of the
            target's score, or the ``entropy`` of all scores; callers of the file may choose another. None takes
            ``logit``.
        feature_map: the name of the value (N, c, h, w) that the gradients are with respect to, besides image and mask,
            or several names; None takes the feature maps that the file gives, else the last one.
        gradient_output: the name of any output, whose values are differentiated in place of the class scores, each
            times its weight, see :func:`masktool.export`; None differentiates class scores.

    Returns:
        What was written; the figures in ``metadata.parity`` are those of the earlier export.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule; the error lists all of them.
        MasktoolError: the model was not exported before, holds gradients already, or has no such output or class
            scores.
    """
    from masktool.exporters.sources import load_source
    from masktool.exporters.write_extended import write_with_gradients

    check_target(path)
    check_gradient_choice(loss, gradient_output)
    if gradient_output is None:
        loss = loss or "logit"
    source = load_source(model)
    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is None:
        raise MasktoolError(
            "the model takes no mask yet: masktool did not export it",
            where=source.name,
            fix='export it with gradients at once: masktool.export(..., gradient="logit")',
        )
    check_takes_gradients(recorded, source.name)
    return write_with_gradients(source, path, recorded, loss, gradient_output, name_feature_maps(feature_map))


def add_feature_maps_to(model: Model | Source, path: str | os.PathLike[str], feature_maps: Sequence[str]) -> Export:
    """Makes feature maps outputs of a model that was exported before without gradients, and changes nothing else of it.

    Args:
        model: the exported file's path, or the exported model in memory; it stays as it is.
        path: the path of the file to write; the file appears only when everything has succeeded.
        feature_maps: the names of the feature maps, or ``last``.

    Raises:
        MasktoolError: the model has no such feature map.
    """
    from masktool.exporters.sources import load_source
    from masktool.exporters.write_extended import write_with_feature_maps

    source = load_source(model)
    recorded = Metadata.from_properties(source.model.metadata_props)
    assert recorded is not None  # it was exported before
    return write_with_feature_maps(source, path, recorded, feature_maps)


def check_takes_gradients(metadata: Metadata | None, where: object) -> None:
    """Raises MasktoolError for a file that explains itself: gradients are not among what it can give."""
    if metadata is not None and metadata.explanation is not None:
        raise MasktoolError(
            f"the file explains itself by {metadata.explanation['method']}, and takes no gradients",
            where=where,
            fix="export one that takes a mask: " + call("export", metadata.source, "NEW.onnx", gradient="logit"),
        )
