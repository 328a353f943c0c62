"""Writes a model that explains itself."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from masktool.contract import Metadata
from masktool.exporters.result import Export, summarise_export
from masktool.exporters.sources import Source
from masktool.exporters.storage import open_session, staging
from masktool.exporters.write import PRODUCER


def write_embedded(model: ir.Model, path: Path, metadata: Metadata, source: Source, *, share_weights: bool) -> Export:
    """Writes a model that explains itself, checked by ONNX and opened once by ONNX Runtime.

    Args:
        model: the model.
        path: the path of the file to write.
        metadata: the metadata to write.
        source: the source that the model was made from.
        share_weights: whether the network stands in the graph twice, and its weights in a file beside it once.

    Returns:
        What was written.
    """
    model.metadata_props.update(metadata.to_properties())
    model.producer_name, model.producer_version = PRODUCER, metadata.tool_version
    with staging(path, model, share_weights=share_weights) as staged:
        staged.write()
        staged.check()
        open_session(str(staged.path))
        staged.commit()
        return summarise_export(path, staged.count_bytes(), model, metadata, source)
