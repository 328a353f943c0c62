"""From a network to a file that explains itself: :func:`embed_source`, the whole path.

One run of such a file gives the network's own outputs and, beside them, the saliency map of one method, in standard
operators. The map is the one that the explainer of that name gives in Python with the same settings: options, sample
designs and constants are that explainer's own.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from masktool.contract import Loss
    from masktool.embedding.settings import EmbeddingSettings
    from masktool.explainers.subject import ImageLike
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
    from masktool.embedding.assembly import Assembly
    from masktool.embedding.checks import refuse_optional_inputs, refuse_taken_names, refuse_unexplainable
    from masktool.embedding.measure import limit_for, measure_explanation
    from masktool.embedding.measure_preprocessing import draw_photograph, measure_preprocessing
    from masktool.embedding.method import EMBEDDED_METHODS, ExplainedNetwork
    from masktool.embedding.preprocessing import choose_preprocessing
    from masktool.embedding.write import write_embedded
    from masktool.exporters import mask_source
    from masktool.exporters.portable import make_portable
    from masktool.exporters.write import complete, write_masked
    from masktool.files import temporary_directory

    refuse_optional_inputs(settings, embedding)
    method = embedding.method
    builder = EMBEDDED_METHODS.find(method.name)
    found = mask_source(whole, settings)
    layout = found.prepared.layout
    masked = found.prepared.model.clone()
    metadata = complete(found.metadata, masked, layout)
    size = refuse_unexplainable(found, metadata)
    network = ExplainedNetwork(
        found.plain, masked, metadata, size, embedding.seed, embedding.chunk, embedding.samples_input
    )
    emitted = builder(method, network)
    refuse_taken_names(found, [each.name for each in emitted.extra_inputs()])
    if embedding.samples_input != "fixed":
        emitted.check_samples_input()
    preprocessing = choose_preprocessing(network, embedding)
    model = Assembly(network, emitted, embedding, preprocessing).build()
    if settings.portable:
        metadata = make_portable(model, metadata)
    figures: dict[str, float] = {}
    with temporary_directory() as directory:
        gradient: Loss | None = "logit" if method.needs_gradient else None
        reference = dataclasses.replace(
            found.metadata, gradient=gradient, feature_map=emitted.feature_map, portable=False
        )
        exported = write_masked(
            found.prepared.model, directory / "masked.onnx", reference, layout, found.prepared.trial, found.source
        )
        images: Sequence[ImageLike] = list(found.prepared.trial.probes[0].images)
        if preprocessing is not None and embedding.embed_preprocessing:
            photograph = draw_photograph(preprocessing)
            figures["preprocessing"], images = measure_preprocessing(model, preprocessing, photograph), [photograph]
        limit = limit_for(found.plain, metadata.image_input)
        figures["explanation"], used = measure_explanation(
            model, exported.path, embedding, images, emitted.comparison(), limit
        )
    metadata = dataclasses.replace(
        metadata,
        parity={**exported.metadata.parity, **figures},
        explanation=embedding.document(used),
    )
    return write_embedded(model, Path(path), metadata, found.source, share_weights=embedding.on_request != "always")
