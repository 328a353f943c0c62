"""Writes an exported file with a correction of its class scores, measured anew."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from masktool.contract import Metadata
from masktool.correction import Correction
from masktool.exporters.calibration import correct_scores, find_site, without_correction
from masktool.exporters.calibration_figures import draw_probe, measure_correction
from masktool.exporters.check import measure_file
from masktool.exporters.heads import find_kept_head, head_path
from masktool.exporters.parity import DEFECT, check_parity
from masktool.exporters.plain_branch import masked_alone, opened_alone
from masktool.exporters.portable import make_portable
from masktool.exporters.reopen import answer
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import load_small_weights, staging, weights_path
from masktool.exporters.tolerance import limits_of, widened
from masktool.exporters.write import ExpectedAnswer, finish_file, with_gradients

if TYPE_CHECKING:
    from masktool.exporters.result import Export
    from masktool.exporters.sources import Source


def write_uncorrected(source: Source, path: Path) -> Metadata:
    """Writes a copy of an exported model without its correction and its gradients; returns the copy's metadata."""
    model, metadata = without_correction(graph_as_written(source), recorded_metadata(source))
    load_small_weights(model)
    with staging(path, model, share_weights=has_shared_weights(source, metadata)) as staged:
        staged.write()
        staged.commit()
    return metadata


def graph_as_written(source: Source) -> ir.Model:
    """Returns an exported graph as it stands in its file: what reading it adds, such as shapes, may move last bits."""
    return source.model if source.path is None else ir.load(source.path)


def recorded_metadata(source: Source) -> Metadata:
    """Returns the metadata of a model that was exported before."""
    metadata = Metadata.from_properties(source.model.metadata_props)
    assert metadata is not None  # as the caller has seen
    return metadata


def has_shared_weights(source: Source, metadata: Metadata) -> bool:
    """Tells whether a file holds two networks whose weights stand once, in a file beside it."""
    return metadata.plain_branch and source.path is not None and weights_path(source.path).exists()


def write_calibrated(
    source: Source, path: str | os.PathLike[str], correction: Correction, record: Mapping[str, Any]
) -> Export:
    """Writes an exported model with another correction of its class scores, and measures it.

    Figures that the network's source is needed for stay those of the export: under a mask of ones the file gives the
    same bits.

    Args:
        source: the exported model, corrected before or not, which stays as it is.
        path: the path of the file to write.
        correction: the correction, in the space of :func:`masktool.exporters.calibration.find_site`.
        record: the entries of :attr:`masktool.contract.Metadata.calibration`.

    Raises:
        MasktoolError: a figure is beyond its limit, or the file cannot be written.
    """
    before = recorded_metadata(source)
    model, metadata = without_correction(graph_as_written(source), before)
    head = find_kept_head(source, metadata)
    kept = None if head is None else head_path(Path(path)).name
    metadata = dataclasses.replace(metadata, calibration=dict(record), head=kept)
    shared = has_shared_weights(source, metadata)
    load_small_weights(model)
    bare = model.clone()
    correct_scores(model, find_site(model, metadata), correction)
    if metadata.portable:
        metadata = make_portable(model, metadata)
    model.metadata_props.update(metadata.to_properties())
    with (
        opened_alone(bare, metadata.image_input) as uncorrected,
        staging(Path(path), model, share_weights=shared) as staged,
    ):
        file = RunnableModel.of(staged.open, metadata.image_input)
        limits = limits_of(model, metadata.image_input)
        figures = measure_corrected(file, uncorrected, model, metadata, limits)
        metadata = dataclasses.replace(metadata, parity={**metadata.parity, **figures})
        check_parity(figures, widened(limits, metadata.parity), DEFECT)
        probe = draw_probe(file, model, metadata)
        expected = ExpectedAnswer(probe, answer(file, probe), widened(limits, metadata.parity)["ones"])
        del file
        if before.has_gradients:
            metadata = dataclasses.replace(metadata, gradient=before.gradient, gradient_output=before.gradient_output)
            metadata = with_gradients(model, metadata)
        if head is not None and kept is not None:
            staged.add_copy(head, kept)
        return finish_file(staged, Path(path), metadata, source, expected, None)


def measure_corrected(
    file: RunnableModel,
    uncorrected: RunnableModel,
    model: ir.Model,
    metadata: Metadata,
    limits: Mapping[str, float],
) -> dict[str, float]:
    """Returns the figures of a file with a correction that need no source, and those of the correction.

    Args:
        file: the file.
        uncorrected: the same file without its correction.
        model: the file's graph.
        metadata: the file's metadata.
        limits: the limits of the figures.
    """
    if metadata.plain_branch:
        with opened_alone(masked_alone(model, metadata.source), metadata.image_input) as masked:
            figures, _ = measure_file(masked, model, metadata, limits, None, file)
    else:
        figures, _ = measure_file(file, model, metadata, limits, None)
    return figures | measure_correction(file, uncorrected, model, metadata)
