"""Measures the correction in a file: against the same file without it, and against the correction in numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.contract import Metadata
from masktool.errors import MasktoolError
from masktool.exporters.calibration import read_correction, without_correction
from masktool.exporters.differences import relative_difference
from masktool.exporters.plain_branch import opened_alone
from masktool.exporters.probes import Probe
from masktool.exporters.runnable import RunnableModel
from masktool.exporters.storage import load_small_weights
from masktool.exporters.trial import try_source


def measure_alone(file: RunnableModel, model: ir.Model, metadata: Metadata) -> dict[str, float]:
    """Returns the figures of a file's correction, which is taken out of a copy of its graph for that.

    Args:
        file: the file.
        model: the file's graph, which stays as it is.
        metadata: the file's metadata.
    """
    bare, _ = without_correction(model, metadata)
    load_small_weights(bare)
    with opened_alone(bare, metadata.image_input) as uncorrected:
        return measure_correction(file, uncorrected, model, metadata)


def draw_probe(file: RunnableModel, model: ir.Model, metadata: Metadata) -> Probe:
    """Returns the images and masks that a file is measured with first."""
    layout = metadata.layout or (metadata.preprocessing.layout if metadata.preprocessing else "NCHW")
    return try_source(file, model, layout, metadata.preprocessing, metadata.parity.get("probes")).probes[0]


def measure_correction(
    file: RunnableModel, uncorrected: RunnableModel, model: ir.Model, metadata: Metadata
) -> dict[str, float]:
    """Returns the figures of a correction: how far the file is from the one without, and from what it should be.

    Args:
        file: the file.
        uncorrected: the same file without its correction.
        model: the file's graph, from which the correction is read.
        metadata: the file's metadata.
    """
    assert metadata.calibration is not None
    assert metadata.output_kind is not None
    correction = read_correction(model, metadata.calibration["space"])
    if correction is None:
        raise MasktoolError(
            "the graph does not hold the correction that its metadata tell of",
            where=metadata.source,
            fix="export and calibrate the model again",
        )
    probe, index = draw_probe(file, model, metadata), file.outputs.index(str(metadata.class_output))
    ones = np.ones_like(probe.masks)
    whole = relative_difference(file.run(probe.images, ones), uncorrected.run(probe.images, ones))
    found, given = (each.run(probe.images, probe.masks)[index] for each in (file, uncorrected))
    scores = given.reshape(len(given), -1)
    expected = correction.corrected_output(scores, metadata.output_kind).reshape(found.shape)
    return {"uncorrected": whole, "correction": relative_difference([found], [expected.astype(found.dtype)])}
