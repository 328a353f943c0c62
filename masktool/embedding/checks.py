"""Refusals of networks that no file can explain by itself."""

from __future__ import annotations

from collections.abc import Iterable

from masktool.contract import (
    DEFAULT_SIZE,
    EXPLAIN_INPUT,
    OVERLAY,
    SALIENCY_MAP,
    SEGMENT_ATTRIBUTIONS,
    TARGET_INPUT,
    Metadata,
)
from masktool.embedding.settings import EmbeddingSettings
from masktool.errors import MasktoolError
from masktool.exporters.masked import MaskedNetwork
from masktool.exporters.onnx_file import input_size_of
from masktool.exporters.settings import ExportSettings
from masktool.layouts import show_size
from masktool.messages import SIZE, Placeholder, call, parameter

OWN_NAMES = frozenset({EXPLAIN_INPUT, OVERLAY, SALIENCY_MAP, SEGMENT_ATTRIBUTIONS, TARGET_INPUT})
"""Names of inputs and outputs that an explanation adds."""


def refuse_optional_inputs(settings: ExportSettings, embedding: EmbeddingSettings) -> None:
    """Raises MasktoolError where a portable file is to have an input that may be left out, or one of any size."""
    inputs = {TARGET_INPUT: embedding.target, EXPLAIN_INPUT: embedding.on_request}
    optional = [name for name, kind in inputs.items() if kind == "optional"]
    if settings.portable and optional:
        raise MasktoolError(
            "every input of a portable file is required",
            where=", ".join(f"input {name!r}" for name in optional),
            expected="required",
            got="optional",
        )
    if settings.portable and embedding.embed_preprocessing:
        raise MasktoolError(
            "a portable file is for inputs of one size, and photographs are of any",
            where=parameter("embed_preprocessing", True),
            fix="leave that or " + parameter("portable", True) + " out",
        )


def refuse_unexplainable(network: MaskedNetwork, metadata: Metadata) -> tuple[int, int]:
    """Returns (height, width) of the input in pixels.

    Raises:
        MasktoolError: the network has no class scores, an open height or width, or inputs or outputs of the names that
            an explanation adds.
    """
    if metadata.class_output is None:
        raise MasktoolError(
            "an explanation in the file is of class scores (N, K), and the model has none",
            where=network.source.name,
            fix="export it with a mask and explain one value of an output; or choose one with "
            + parameter("class_output", Placeholder("NAME")),
        )
    size = input_size_of(network.plain, metadata.image_input)
    if size is None:
        raise MasktoolError(
            "an explanation in the file is for one size, and the model leaves its height or width open",
            where=network.source.name,
            fix="fix them with " + parameter("input_size", SIZE),
        )
    if len(size) != len(DEFAULT_SIZE):
        raise MasktoolError(
            "a file that explains itself is for images",
            where=network.source.name,
            expected="an input (N, C, H, W)",
            got=show_size(size),
            fix="export it with a mask and explain it by " + call("explain", "FILE", "ARRAY.npy"),
        )
    refuse_taken_names(network, OWN_NAMES)
    return size[0], size[1]


def refuse_taken_names(network: MaskedNetwork, names: Iterable[str]) -> None:
    """Raises a MasktoolError where the network has inputs or outputs of names that an explanation adds."""
    graph = network.plain.graph
    taken = sorted({str(value.name) for value in (*graph.inputs, *graph.outputs)}.intersection(names))
    if taken:
        raise MasktoolError(
            "the model has inputs or outputs of names that an explanation adds",
            where=network.source.name,
            got=", ".join(taken),
            fix="rename them in the source",
        )
