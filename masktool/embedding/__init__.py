"""From a network to a file that explains itself: :func:`embed_source`, the whole path.

One run of such a file gives the network's own outputs and, beside them, the saliency map of one method, in standard
operators. The map is the one that the explainer of that name gives in Python with the same settings: options, sample
designs and constants are that explainer's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from masktool.embedding.settings import EmbeddingSettings
    from masktool.exporters.result import Export
    from masktool.exporters.settings import ExportSettings
    from masktool.exporters.sources import Source

__all__ = ["embed_source"]


def embed_source(
    whole: Source, path: str | os.PathLike[str], settings: ExportSettings, embedding: EmbeddingSettings
) -> Export:
    """Writes a model that was read as a file that explains itself.

    Args:
        whole: the model that was read, with all its outputs; it stays as it is.
        path: the path of the file to write.
        settings: how the model is masked.
        embedding: the method, and how it becomes part of the file.

    Returns:
        What was written. ``metadata.parity`` holds the figures of the masked model, and ``explanation``: how far the
        map lies from the one that the explainer gives in Python, as a share of that map's range; and where the file
        takes a photograph, ``preprocessing``: how far the pixels that it makes of one lie from those that Pillow makes,
        in grey levels.

    Raises:
        UnsupportedOperatorError: nodes without the mask or gradient rule that the method needs.
        MasktoolError: the method has no graph for this network; the error says why.
    """
    from masktool.embedding.building import build_explained, measure_explained, write_reference
    from masktool.embedding.checks import refuse_optional_inputs
    from masktool.embedding.write import write_embedded
    from masktool.exporters import mask_source
    from masktool.files import temporary_directory

    refuse_optional_inputs(settings, embedding)
    found = mask_source(whole, settings)
    built = build_explained(found, settings, embedding)
    source = found.source
    with temporary_directory() as directory:
        reference = write_reference(found, built, embedding, directory)
        del found  # its sessions hold the network's weights, and so do those that measure the map
        model, metadata = measure_explained(built, reference, embedding)
    share_weights = embedding.on_request != "always"
    return write_embedded(model, Path(path), metadata, source, share_weights=share_weights)
