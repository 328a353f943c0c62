"""From a source to a masked ONNX file: :func:`export_source`, the whole path, whose steps have files of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.exporters.added_gradients import add_gradients_to
from masktool.exporters.settings import ExportSettings
from masktool.messages import differently

if TYPE_CHECKING:
    from masktool.exporters.masked import MaskedNetwork
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Source
    from masktool.exporters.write import Compare

__all__ = ["add_gradients_to", "export_source", "mask_source"]


def export_source(
    whole: Source, path: str | os.PathLike[str], settings: ExportSettings, compare: Compare | None = None
) -> Export:
    """Exports a model that was read, by the steps that DESIGN.md describes.

    Args:
        whole: the model that was read, with all its outputs; it stays as it is.
        path: the path of the file to write.
        settings: the masking mode and the other options of the export.
        compare: the function that compares the file with another one, see :data:`masktool.exporters.write.Compare`.

    Raises:
        MasktoolError: see :func:`masktool.export`.
    """
    from masktool.exporters.given_maps import settle_feature_maps
    from masktool.exporters.heads import find_head
    from masktool.exporters.other_ways import advising_a_size
    from masktool.exporters.write import write_masked
    from masktool.exporters.write_branches import write_branches

    network = mask_source(whole, settings)
    prepared, head = network.prepared, find_head(network, settings, export_source)
    network = network._replace(metadata=settle_feature_maps(network, head, settings.head))
    with advising_a_size(whole, settings, prepared.trial.size, export_source):
        if settings.plain_branch:
            return write_branches(network, path, compare)
        return write_masked(
            prepared.model, path, network.metadata, prepared.layout, prepared.trial, network.source, compare, head
        )


def mask_source(whole: Source, settings: ExportSettings) -> MaskedNetwork:
    """Makes a model that was read take a mask, in memory.

    Args:
        whole: the model that was read, with all its outputs; it stays as it is.
        settings: the masking mode and the other options of the export.

    Raises:
        MasktoolError: see :func:`masktool.export`.
    """
    from masktool.exporters.chosen_boxes import leave_out_lists
    from masktool.exporters.file_metadata import begin_metadata, find_class_output
    from masktool.exporters.masked import MaskedNetwork
    from masktool.exporters.other_ways import advising_fill
    from masktool.exporters.precision_source import narrow_source, refuse_precision
    from masktool.exporters.preparation import add_mask, prepare_graph, settle_one_image
    from masktool.exporters.trial import open_source
    from masktool.exporters.user_choices import source_preprocessing

    refuse_exported(whole)
    if settings.precision is not None:
        refuse_precision(whole, settings.precision)
    source = leave_out_lists(whole, settings.masking)
    plain = open_source(source.model, source.image_input, source.path)  # what ONNX Runtime refuses needs no other look
    preprocessing = source_preprocessing(source, settings.preprocessing)
    prepared = prepare_graph(source, plain, preprocessing)
    head = find_class_output(source, prepared, settings.output, plain.batch)
    if settings.precision == "fp16":
        source = narrow_source(source, prepared.trial)
        prepared = prepare_graph(source, open_source(source.model, source.image_input, None), preprocessing)
    unmasked = prepared.model.clone()
    settle_one_image(source, prepared, unmasked)
    with advising_fill(whole, settings, export_source):
        add_mask(source, prepared, settings)
    return MaskedNetwork(source, unmasked, prepared, begin_metadata(source, prepared, head, settings))


def refuse_exported(source: Source) -> None:
    """Raises MasktoolError for a model that masktool exported before."""
    recorded = Metadata.from_properties(source.model.metadata_props)
    if recorded is not None and not recorded.takes_mask:
        raise MasktoolError(
            "the model explains itself already: masktool exported it before",
            where=source.name,
            fix=f"export the plain model, {recorded.source}",
        )
    if source.exported_before:
        raise MasktoolError(
            "the model takes a mask already: masktool exported it before",
            where=source.name,
            fix=differently(
                python="export the plain model, or add gradients to this one with masktool.add_gradients_to",
                command="export the plain model, or add gradients to this one with --gradient",
            ),
        )
