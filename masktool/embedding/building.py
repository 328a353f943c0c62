"""The steps between a masked network and a written file that explains itself: building and measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx_ir as ir
from numpy.typing import NDArray

from masktool.contract import Metadata, Preprocessing
from masktool.embedding.assembly import Assembly
from masktool.embedding.checks import refuse_taken_names, refuse_unexplainable
from masktool.embedding.measure import limit_for, measure_explanation
from masktool.embedding.measure_preprocessing import draw_photograph, measure_preprocessing
from masktool.embedding.method import EMBEDDED_METHODS, EmbeddedMethod, ExplainedNetwork
from masktool.embedding.preprocessing import choose_preprocessing
from masktool.embedding.settings import EmbeddingSettings
from masktool.explainers.subject import ImageLike
from masktool.exporters.masked import MaskedNetwork
from masktool.exporters.portable import make_portable
from masktool.exporters.settings import ExportSettings
from masktool.exporters.write import complete, write_masked


class Built(NamedTuple):
    """A model that explains itself, before it was measured.

    Attributes:
        model: the model.
        method: the method's graph in it.
        metadata: the metadata without figures and without what they say of the explanation.
        preprocessing: the steps from a photograph to the input that the model takes or draws by; None where it does
            neither.
        portable: whether the model is to be written for other runtimes.
    """

    model: ir.Model
    method: EmbeddedMethod[Any]
    metadata: Metadata
    preprocessing: Preprocessing | None
    portable: bool

    def finished(self, constants: Mapping[str, NDArray[Any]]) -> tuple[ir.Model, Metadata]:
        """Returns a copy of the model as it is written, with its metadata; some constants have other values."""
        model = self.model.clone()
        for name in constants.keys() & model.graph.initializers.keys():
            model.graph.initializers[name].const_value = ir.tensor(constants[name], name=name)
        return model, make_portable(model, self.metadata) if self.portable else self.metadata


def build_explained(found: MaskedNetwork, settings: ExportSettings, embedding: EmbeddingSettings) -> Built:
    """Builds the model that explains itself; the masked network stays as it is.

    Raises:
        UnsupportedOperatorError: nodes without the gradient rule that the method needs.
        MasktoolError: the method has no graph for this network; the error says why.
    """
    masked = found.prepared.model.clone()
    metadata = complete(found.metadata, masked, found.prepared.layout)
    size = refuse_unexplainable(found, metadata)
    network = ExplainedNetwork(
        found.plain, masked, metadata, size, embedding.seed, embedding.chunk, embedding.samples_input
    )
    method = EMBEDDED_METHODS.find(embedding.method.name)(embedding.method, network)
    refuse_taken_names(found, [each.name for each in method.extra_inputs()])
    if embedding.samples_input != "fixed":
        method.check_samples_input()
    preprocessing = choose_preprocessing(network, embedding)
    model = Assembly(network, method, embedding, preprocessing).build()
    return Built(model, method, metadata, preprocessing, settings.portable)


class Reference(NamedTuple):
    """The masked file by which the explainer in Python explains, and what the two maps are compared on.

    Attributes:
        path: the path of the file, with gradients where the method needs them.
        parity: the figures of the masked model.
        images: the images, as the model that explains itself takes them.
        limit: the largest difference between the maps, see :func:`masktool.embedding.measure.limit_for`.
    """

    path: Path
    parity: Mapping[str, Any]
    images: Sequence[ImageLike]
    limit: float


def write_reference(found: MaskedNetwork, built: Built, embedding: EmbeddingSettings, directory: Path) -> Reference:
    """Measures and writes the masked network, which is used up: its sessions need not be kept beside those that follow.

    Args:
        found: the masked network.
        built: the model that explains itself.
        embedding: the method, and how it became part of the model.
        directory: the directory to write into.

    Raises:
        MasktoolError: a figure is beyond its limit.
    """
    prepared = found.prepared
    of_file = dataclasses.replace(
        found.metadata,
        gradient="logit" if embedding.method.needs_gradient else None,
        portable=False,
    ).with_feature_maps(built.method.feature_maps)
    parity: dict[str, Any] = {}
    images: Sequence[ImageLike] = list(prepared.trial.probes[0].images)
    if built.preprocessing is not None and embedding.embed_preprocessing:
        photograph = draw_photograph(built.preprocessing)
        parity["preprocessing"] = measure_preprocessing(built.model, built.preprocessing, photograph)
        images = [photograph]
    path = directory / "masked.onnx"
    exported = write_masked(prepared.model, path, of_file, prepared.layout, prepared.trial, found.source)
    limit = limit_for(found.plain, built.metadata.image_input)
    return Reference(exported.path, {**exported.metadata.parity, **parity}, images, limit)


def measure_explained(built: Built, reference: Reference, embedding: EmbeddingSettings) -> tuple[ir.Model, Metadata]:
    """Measures the model against the explainer in Python, and returns it as it is written, with its whole metadata.

    What is measured may make fewer steps than what is written, where the method says so, and is the same otherwise.

    Raises:
        MasktoolError: the map differs by more than the limit.
    """
    comparison = built.method.comparison()
    measured, _ = built.finished(comparison.feeds)
    difference, used = measure_explanation(
        measured, reference.path, embedding, reference.images, comparison, reference.limit
    )
    model, metadata = built.finished({})
    parity = {**reference.parity, "explanation": difference}
    return model, dataclasses.replace(metadata, parity=parity, explanation=embedding.document(used))
