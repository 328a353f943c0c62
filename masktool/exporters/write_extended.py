"""Writes models that were exported before with more outputs, gradients or feature maps; others stay as they were."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from masktool.contract import Loss, Metadata
from masktool.errors import MasktoolError
from masktool.exporters.given_maps import find_in_masked, give_feature_maps, leave_out_feature_maps
from masktool.exporters.heads import find_kept_head, head_path
from masktool.exporters.plain_branch import masked_alone
from masktool.exporters.reopen import answer, check_written
from masktool.exporters.result import Export, summarise_export
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.saturation import advise_on_difference
from masktool.exporters.storage import staging
from masktool.exporters.tolerance import limits_of, widened
from masktool.exporters.trial import try_source
from masktool.exporters.write import with_gradients

if TYPE_CHECKING:
    from masktool.exporters.sources import Source

WITHOUT_PLAIN = (
    "the plain network beside the masked one is left out: gradients are computed in every run, so that it saves nothing"
)
"""What the user should know of gradients that are added to a file of both networks."""


def write_with_gradients(
    source: Source,
    path: str | os.PathLike[str],
    metadata: Metadata,
    loss: Loss | None,
    gradient_output: str | None,
    feature_maps: Sequence[str],
) -> Export:
    """Writes a masked model that was exported before, with gradients added; a plain network beside it is left out.

    Args:
        source: the masked model, which stays as it is.
        path: the path of the file to write.
        metadata: the metadata of the masked model.
        loss: the loss of class scores whose gradients the file gives by default; None where they are of an output.
        gradient_output: the output that gradients are of; None where they are of class scores.
        feature_maps: names of the values that the gradients are also taken with respect to; none takes the feature maps
            that the model gives, else the last one.

    Raises:
        MasktoolError: the model has gradients already, has no such output, or has names that gradients need.
    """
    if metadata.has_gradients:
        found = metadata.gradient or f"of output {metadata.gradient_output!r}"
        raise MasktoolError("the file holds gradients already", where=metadata.source, got=found)
    model = masked_alone(source.model, source.name)
    if metadata.plain_branch:
        source = dataclasses.replace(source, notes=(*source.notes, WITHOUT_PLAIN))
    head = find_kept_head(source, metadata, feature_maps)
    leave_out_feature_maps(model)
    metadata = dataclasses.replace(
        metadata.with_feature_maps(feature_maps or metadata.feature_maps),
        gradient=loss,
        gradient_output=gradient_output and (metadata.renamed or {}).get(gradient_output, gradient_output),
        head=None if head is None else head_path(Path(path)).name,
        plain_branch=False,
    )
    return write_extended(source, path, model, metadata, lambda known: with_gradients(model, known), head)


def write_with_feature_maps(
    source: Source, path: str | os.PathLike[str], metadata: Metadata, feature_maps: Sequence[str]
) -> Export:
    """Writes a masked model that was exported before, with feature maps as outputs; a plain network is left out.

    Args:
        source: the masked model, which stays as it is.
        path: the path of the file to write.
        metadata: the metadata of the masked model.
        feature_maps: names of the feature maps, or ``last``.

    Raises:
        MasktoolError: the model has no such feature map, or an output has the name of one.
    """
    model = masked_alone(source.model, source.name)
    leave_out_feature_maps(model)
    found = find_in_masked(model, metadata, feature_maps, source.name)
    bare = dataclasses.replace(metadata.with_feature_maps(()), head=None, plain_branch=False)

    def extend(known: Metadata) -> Metadata:
        give_feature_maps(model, found)
        return known.with_feature_maps(found)

    return write_extended(source, path, model, bare, extend)


def write_extended(
    source: Source,
    path: str | os.PathLike[str],
    model: ir.Model,
    metadata: Metadata,
    extend: Callable[[Metadata], Metadata],
    head: Path | None = None,
) -> Export:
    """Writes a masked model that was exported before with more outputs, all others as they were.

    Args:
        source: the model as it was exported.
        path: the path of the file to write.
        model: the graph without what is added.
        metadata: the metadata of the graph.
        extend: function that adds outputs to the graph, and returns the metadata of the new one.
        head: the path of a head that goes along; None where there is none.
    """
    layout = metadata.layout or (metadata.preprocessing.layout if metadata.preprocessing else "NCHW")
    with staging(Path(path), model) as staged:
        masked = RunnableModel.of(staged.open, metadata.image_input)
        recorded = metadata.parity.get("probes")
        probe = try_source(masked, model, layout, metadata.preprocessing, recorded).probes[0]
        measured = answer(masked, probe)
        del masked
        tolerance = widened(limits_of(model, metadata.image_input), metadata.parity)["ones"]
        metadata = extend(metadata)
        model.metadata_props.update(metadata.to_properties())
        staged.write()
        staged.check()
        check_written(staged.path, metadata, probe, measured, tolerance, advise_on_difference(model))
        if head is not None:
            staged.add_copy(head, head_path(staged.path).name)
        staged.commit()
        return summarise_export(Path(path), staged.count_bytes(), model, metadata, source)
